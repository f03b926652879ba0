"""What this book asks of Sphinx beyond its extensions: docstrings of the house, links to the front door, sound HTML."""

from __future__ import annotations

import inspect
from typing import Any

import apidoc
from docutils import nodes
from sphinx.addnodes import desc_signature, pending_xref
from sphinx.application import Sphinx


def read_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """autodoc's docstring, from the house's form to reStructuredText; the comments of a class's fields follow it."""
    extra = apidoc.fields(inspect.getsource(thing)) if inspect.isclass(thing) and thing.__doc__ else []
    lines[:] = [*apidoc.rest(lines), *extra]


def skip_member(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a NamedTuple, which the signature has; keep functions and classes without docstring."""
    if str(getattr(thing, "__doc__", "")).startswith("Alias for field number"):
        return True
    shown = what == "module" and not name.startswith("_") and (inspect.isroutine(thing) or inspect.isclass(thing))
    return False if shown else None


def resolve(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """`dyniso.AdamO` leads to where AdamO is defined; `names` in docstrings, and types in signatures, may lead nowhere.

    What a chapter refers to by {py:func} and the like has to exist: None makes Sphinx warn, and the build fail.
    """
    import dyniso

    name = node.get("reftarget", "").removeprefix("dyniso.")
    if node.get("refdomain") != "py":
        return None
    found = None
    if name in dyniso._HOME:
        target, domain = f"dyniso.{dyniso._HOME[name]}.{name}", env.get_domain("py")
        found = domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, content)
    return found or (content if node["reftype"] == "obj" or in_signature(node) else None)


def in_signature(node: nodes.Node | None) -> bool:
    return node is not None and (isinstance(node, desc_signature) or in_signature(node.parent))


def own_ids(app: Sphinx, doctree: nodes.document) -> None:
    """sphinx-proof gives every observation's content the same id, and every proof: each gets one of its own."""
    for section in doctree.findall(nodes.section):
        if section["ids"] == ["proof-content"]:
            section["ids"] = [f"{section.parent['label']}-content"]
    proofs = [box for box in doctree.findall(nodes.admonition) if box["ids"] == ["proof"]]
    for number, box in enumerate(proofs, start=1):
        box["ids"] = [f"proof-{number}"]


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Nothing runs in the page, and sphinx-thebe declares its constants twice, which is an error in the browser."""
    context["script_files"] = [script for script in context["script_files"] if not about_thebe(script)]
    context["css_files"] = [sheet for sheet in context["css_files"] if not about_thebe(sheet)]


def about_thebe(asset: Any) -> bool:
    return "thebe" in str(getattr(asset, "filename", asset)) or "THEBE" in getattr(asset, "attributes", {}).get(
        "body", ""
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx; _config.yml names this module."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.autosummary")
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", resolve)
    app.connect("doctree-read", own_ids)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
