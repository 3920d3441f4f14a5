"""Frozen passes on Ray give the values of a local pass bit for bit."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

import forked
from ray_cluster import two_nodes
from tiny import write_tiny_store
from trichord import cluster as cluster_module
from trichord.cluster import RayOptions
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.modality import Order
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.study import factories
from trichord.training import frozen_ray
from trichord.training.frozen import FrozenSettings, frozen_inputs
from trichord.training.frozen_ray import PartMaker, freeze_on_ray
from trichord.training.stage import stages_of

LARGE = FrozenSettings(True, 10**12, 10**9, "no")


def arguments(store: Path) -> tuple[Any, ...]:
    """Arguments of a stage that trains audio against frozen video and text."""
    recipe = load_recipe("debug", training={"tensorboard": False, "device": "cpu"})
    opened, stage = Store(store), stages_of(Order.parse("vt>a"))[1]
    source, reader = factories.build_batches(recipe, opened, stage, 0)
    return factories.build_model(recipe, opened, 0), stage, source, reader, LARGE


def values(store: Path) -> dict[str, bytes]:
    """Return all caches of a store; existing ones are read."""
    frozen_inputs(*arguments(store), Accelerator(cpu=True))
    folder = store / "frozen"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A store without caches (560 clips in three parts), and a copy with the caches of a local pass."""
    root = tmp_path_factory.mktemp("stores")
    write_tiny_store(root / "plain", num_train=70, num_test=1)
    shutil.copytree(root / "plain", root / "local")
    return root / "plain", values(root / "local")


class InProcess:
    """A substitute for the cluster: one actor, with pickled arguments and rows."""

    def __init__(self, options: RayOptions, device: str) -> None:
        pass

    def room(self) -> int:
        return 2

    def mapped(self, actor: type, arguments: tuple[Any, ...], rows: list[dict[str, Any]], count: int) -> Any:
        maker = actor(*pickle.loads(pickle.dumps(arguments)))
        try:
            yield from map(maker, reversed(rows))
        finally:
            maker._leases.close()

    def close(self) -> None:
        pass


def test_parts_of_actors_are_those_of_the_local_pass(
    stores: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path(shutil.copytree(stores[0], tmp_path / "s"))
    monkeypatch.setattr(frozen_ray, "Cluster", InProcess)
    messages: list[str] = []
    with passing_messages(messages.append):
        num_parts = freeze_on_ray(RayOptions(), *arguments(store), Accelerator(cpu=True))
    assert num_parts == 6 and messages == ["frozen video, text: 2 workers on Ray computed 6 parts"]
    assert len(list((store / "frozen").glob("*/index.json"))) == 2
    assert values(store) == stores[1]
    assert freeze_on_ray(RayOptions(), *arguments(store), Accelerator(cpu=True)) == 0


def test_a_node_with_other_content_is_reported(stores: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    maker = PartMaker(str(tmp_path), "cpu", *arguments(Path(shutil.copytree(stores[0], tmp_path / "s"))))
    assert (
        "no such file or directory" in maker({"key": "video-0", "parts": [0]})["failure"].lower()
    )  # nobody made the folder
    (tmp_path / "s" / "frozen").mkdir()
    maker = PartMaker(str(tmp_path), "cpu", *arguments(tmp_path / "s"))
    assert maker({"key": "video-0", "parts": [0]})["failure"].endswith(
        "differ from those of the driver: there is no pass video-0"
    )
    maker._leases.close()


def test_an_unusable_cluster_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = True

    class Ray:
        """One node with one core."""

        def is_initialized(self) -> bool:
            return connected

        def nodes(self) -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": {"CPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]

    monkeypatch.setattr(cluster_module, "_imported", Ray)
    assert cluster_module.Cluster(RayOptions(), "cpu").room() == 1
    for options, device, what in (
        (RayOptions(cpus=2), "cpu", "2 cores and 0"),
        (RayOptions(), "cuda", "1 cores and 1"),
    ):
        with pytest.raises(
            TrichordError, match=f"has no node with {what} GPUs for a worker; request fewer, or add nodes"
        ):
            cluster_module.Cluster(options, device).room()
    connected = False
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        for scheme in ("", "ray://"):
            address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(
                TrichordError, match=f"no Ray cluster at '{address}' .*refused.*; start one with `ray start"
            ):
                cluster_module.Cluster(RayOptions(address), "cpu").room()


SCRIPT = """
import sys
from pathlib import Path
from accelerate import Accelerator
from test_frozen_ray import arguments
from trichord.cluster import RayOptions
from trichord.training.frozen_ray import freeze_on_ray
print(freeze_on_ray(RayOptions(sys.argv[2]), *arguments(Path(sys.argv[1])), Accelerator(cpu=True)))
"""


@pytest.mark.slow
def test_two_nodes_make_the_values_of_one_machine(stores: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    store = Path(shutil.copytree(stores[0], tmp_path / "s"))
    with two_nodes() as cluster:
        done = forked.run(
            [sys.executable, "-c", SCRIPT, str(store), cluster.address], cwd=Path(__file__).parent, capture_output=True,
            text=True, timeout=200, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "6\n"), done
    assert len(list((store / "frozen").glob("*/index.json"))) == 2 and values(store) == stores[1]
