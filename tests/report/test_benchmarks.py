"""What counts as a benchmark of the paper beyond the list of names that tests/report/test_claims.py holds."""

from dataclasses import replace

from dyniso.report.claims.benchmarks import is_of_the_paper
from dyniso.study import specs


def test_stream_that_fades_from_task_to_task_is_not_the_papers():
    whole = specs.get("random_labels")
    whole = replace(whole, stream=replace(whole.stream, dataset="cifar10"))
    assert is_of_the_paper(whole)
    assert not is_of_the_paper(replace(whole, stream=replace(whole.stream, transition=0.5)))
