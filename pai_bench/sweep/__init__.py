"""Planning a sweep and running it: what is asked, what is there, and who does the rest."""
