"""Laws that every pruning method must obey, as checks for methods of plug-ins and installed packages."""

from pai_bench.testing.laws import LAWS, Law
from pai_bench.testing.networks import NETWORKS
from pai_bench.testing.report import Case, Report, Verdict, check_method, method_cases

__all__ = ["LAWS", "NETWORKS", "Case", "Law", "Report", "Verdict", "check_method", "method_cases"]
