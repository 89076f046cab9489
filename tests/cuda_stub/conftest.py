"""Collection of the checks in processes that run on the stub only; elsewhere test_stub.py starts such a process."""

import ctypes

collect_ignore = [] if hasattr(ctypes.CDLL(None), "stub_count") else ["checks"]
