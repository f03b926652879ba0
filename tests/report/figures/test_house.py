"""The picture of the package: every room stands once, arrows are imports, and none runs up."""

import networkx as nx

from dyniso.report.figures import house
from dyniso.study.sources import import_graph

TOY = {
    "dyniso": set(),
    "dyniso.a": set(),
    "dyniso.b": {"dyniso.a"},
    "dyniso.c": {"dyniso.a", "dyniso.b"},
    "dyniso.study.x": {"dyniso.a", "dyniso.c"},
    "dyniso.study.rl.y": {"dyniso.study.x", "dyniso.study.rl.z"},
    "dyniso.study.rl.z": {"dyniso.study.x"},
    "dyniso.report.r": {"dyniso.study.x"},
}


def test_a_package_is_one_room_and_doors_are_none():
    assert set(house.rooms(TOY)) == {
        *(("core", name) for name in "abc"),
        ("study", "x"),
        ("study", "rl"),
        ("report", "r"),
    }


def test_imports_between_storeys_are_counted():
    assert house.between_storeys(house.rooms(TOY)) == {("study", "core"): 2, ("report", "study"): 1}


def test_an_import_that_a_chain_implies_is_not_drawn():
    assert set(house.drawn(house.rooms(TOY), "core").edges) == {
        (("core", "c"), ("core", "b")),
        (("core", "b"), ("core", "a")),
    }


def test_what_is_imported_stands_lower():
    arrows, place = house.drawn(house.rooms(TOY), "core"), house.places(house.rooms(TOY), "core")
    assert all(place[a][1] > place[b][1] for a, b in arrows.edges)


def test_an_import_that_runs_up_is_found():
    assert house.upwards(house.rooms(TOY | {"dyniso.a": {"dyniso.report.r"}})) == [("core", "report")]


def test_no_import_of_dyniso_runs_up_and_no_room_imports_itself_round_about():
    rooms = house.rooms(import_graph())
    assert house.upwards(rooms) == []
    assert nx.is_directed_acyclic_graph(rooms)


def test_every_module_stands_in_one_room_of_the_figure():
    graph = import_graph()
    located = {node for storey in house.STOREYS for node in house.places(house.rooms(graph), storey)}
    assert located == {(house.storey_of(m), house.room_of(m)) for m in graph if m not in house.FRONT}
