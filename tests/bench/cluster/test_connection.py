"""What nodes must have, and addresses that lead nowhere."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from fusetune.bench.cluster import connection
from fusetune.bench.cluster.connection import Cluster, Node, check_versions
from fusetune.bench.cluster.node_facts import node_facts, source_hash
from fusetune.bench.errors import InputError


def node(name: str, **changes: Any) -> Node:
    """A node like this one, with other versions where they are given."""
    facts = node_facts()
    source = changes.pop("source", facts["source"])
    return Node(name, name, 0, 2, {**facts, "source": source, "versions": {**facts["versions"], **changes}})


def test_nodes_like_the_driver_are_taken() -> None:
    check_versions([node("a"), node("b")])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"torch": "1.0"}, "node b has torch 1.0; this driver has torch "),
        ({"fusetune": None, "source": None}, "node b lacks fusetune; this driver has fusetune "),
        ({"triton": "0.1"}, "node b has triton 0.1"),
        ({"source": "0" * 64}, "node b has another fusetune of the same version"),
    ],
)
def test_a_node_with_other_code_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as refused:
        check_versions([node("a"), node("b", **changes)])
    assert told in str(refused.value)


def test_many_such_nodes_are_counted() -> None:
    with pytest.raises(InputError, match=r"each of the nodes n0, n1, n2, n3 and 6 more has torch 1\.0"):
        check_versions([node(f"n{number}", torch="1.0") for number in range(10)])


def test_another_file_is_another_source(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "fusetune"
    (package / "part").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "part" / "a.py").write_text("A = 1\n")
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: type("Found", (), {"submodule_search_locations": [str(package)]})(),
    )
    before = source_hash()
    (package / "part" / "notes.txt").write_text("no code")
    assert source_hash() == before
    (package / "part" / "a.py").write_text("A = 2\n")
    assert source_hash() != before


def test_addresses_that_lead_nowhere_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    for address, told in (
        (f"127.0.0.1:{closed}", "no Ray cluster answers there"),
        ("head", "an address is host:port"),
        ("ray://head:10001", "is an address of Ray Client"),
    ):
        with pytest.raises(InputError) as refused:
            Cluster(address)
        assert told in str(refused.value)


def test_without_ray_one_sentence_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'fusetune\[cluster\]'"):
        connection.load_ray()
