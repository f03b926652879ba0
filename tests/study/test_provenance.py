"""Contracts of dyniso.study.provenance: a result says which code, versions and machine made it."""

from dyniso.study import provenance


def test_provenance_names_versions_commit_and_machine():
    made_by = provenance.provenance("a GPU")
    assert made_by["hardware"] == "a GPU"
    assert all(made_by[k] for k in ("commit", "dyniso", "torch", "python", "started"))


def test_commit_marks_a_changed_library(monkeypatch):
    answers = {"ls-files": "__init__.py", "rev-parse": "0123456789", "status": " M dyniso/x.py"}
    monkeypatch.delenv("DYNISO_COMMIT", raising=False)
    monkeypatch.setattr(provenance, "git", lambda verb, *_: answers[verb])
    assert provenance.commit.__wrapped__() == "0123456789+"
    answers["status"] = ""
    assert provenance.commit.__wrapped__() == "0123456789"
    answers["ls-files"] = ""  # installed inside some other project's checkout
    assert provenance.commit.__wrapped__() == "unknown"


def test_commit_is_marked_if_any_file_of_the_library_differs_from_it(monkeypatch):
    answers = {"ls-files": "__init__.py", "rev-parse": "0123456789"}
    changed = {".": " M optim.py", "__init__.py": ""}
    monkeypatch.delenv("DYNISO_COMMIT", raising=False)
    monkeypatch.setattr(provenance, "git", lambda verb, *rest: answers.get(verb) or changed[rest[-1]])
    assert provenance.commit.__wrapped__() == "0123456789+"
