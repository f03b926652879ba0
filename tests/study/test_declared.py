"""Contracts of dyniso.study.declared: specs allow what the modules that build it declare, and read it without torch."""

import ast
import subprocess
import sys

import pytest

from dyniso import activations, baselines, initialisation, nets
from dyniso.study import declared, optimizers, specs, streams

TABLES = {
    "study.streams KINDS": streams.KINDS,
    "study.optimizers OPTIMIZERS": optimizers.OPTIMIZERS,
    "activations ACTIVATIONS": activations.ACTIVATIONS,
    "nets NORMS": nets.NORMS,
    "initialisation INITS": initialisation.INITS,
}


@pytest.mark.parametrize("table", TABLES)
def test_names_read_from_a_source_are_the_keys_of_the_table_that_builds(table):
    assert declared.names(*table.split()) == tuple(TABLES[table])


def test_methods_read_from_the_sources_are_those_that_registered_themselves():
    found = {name: d.node.name for name, d in declared.methods().items()}
    assert found == {name: kind.__name__ for name, kind in baselines.CLASSES.items() if "dyniso" in kind.__module__}


def test_specs_repeat_no_name_and_build_every_one_that_they_allow():
    assert tuple(streams.KINDS) == specs.STREAM_KINDS
    assert tuple(optimizers.OPTIMIZERS) == specs.OPTIMIZERS
    assert set(specs.BASELINES) == set(declared.methods())
    for name in specs.ACTIVATIONS:
        activations.activation(name)


def test_outputs_are_told_for_kinds_that_there_are():
    assert streams.OUTPUTS.keys() <= streams.KINDS.keys()


def test_specs_load_neither_torch_nor_numpy_nor_pandas():
    command = "import sys, dyniso.study.specs; print(*({'torch', 'numpy', 'pandas', 'duckdb'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("text", ["KINDS = {name: 1}", "KINDS = {}", "KINDS = dict(a=1)", "OTHER = {'a': 1}"])
def test_table_that_is_not_written_out_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / "streams.py").write_text(text)
    with pytest.raises(LookupError, match=r"streams.*KINDS"):
        declared.names("streams", "KINDS", tmp_path)


def test_method_needs_the_classes_that_it_mentions_and_no_other():
    assert [d.node.name for d in declared.needed("redo")] == ["ReDo"]
    assert {d.node.name for d in declared.needed("spectral_norm")} == {"SpectralNorm", "SpectralPenalty"}
    assert declared.needed(None) == []


def test_code_of_a_method_is_its_file_without_the_classes_of_other_methods():
    ((module, text),) = declared.method_code("redo")
    kept = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert (module, kept) == ("dyniso.baselines.units", ["ReDo"])


def test_table_of_which_one_name_is_not_written_out_is_none(tmp_path):
    (tmp_path / "streams.py").write_text("KINDS = {'a': 1, name: 2}")
    with pytest.raises(LookupError, match=r"streams\.KINDS is no table of names that are written out"):
        declared.names("streams", "KINDS", tmp_path)
