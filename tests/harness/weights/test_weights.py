"""Weights: found, identified, read without running code, loaded strictly."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save_file
from torch import nn

from harness import registry, weights
from harness.cards import BackboneCard, InputCard, PretrainedCard
from harness.errors import WeightsError
from harness.system.paths import REPOSITORY

CARD = BackboneCard(
    name="net",
    title="Net",
    input=InputCard((8, 8), (0.5,) * 3, (0.5,) * 3),
    feature_dim=2,
    options={"width": "base", "model": ""},
    pretrained=PretrainedCard(files=("start.pth", "{width}.safetensors"), trained_on="nothing", url="https://here"),
)
STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_a_file_is_found_in_the_folder_or_in_the_backbones_own(root: Path):
    assert weights.locate(CARD, root) is None
    assert weights.locate(CARD, None) is None
    (root / "net").mkdir()
    (root / "net" / "start.pth").write_bytes(b"1")
    assert weights.locate(CARD, root) == root / "net" / "start.pth"
    (root / "start.pth").write_bytes(b"2")
    assert weights.locate(CARD, root) == root / "start.pth"
    assert weights.locate(replace(CARD, pretrained=None), root) is None


def test_file_fits_the_default_width_unless_named_otherwise(root: Path):
    (root / "start.pth").write_bytes(b"1")
    assert weights.locate(CARD, root, {"width": "tiny"}) is None
    (root / "tiny.safetensors").write_bytes(b"2")
    assert weights.locate(CARD, root, {"width": "tiny"}) == root / "tiny.safetensors"
    assert weights.locate(CARD, root, {"width": "base"}) == root / "start.pth"
    plain = replace(CARD, pretrained=PretrainedCard(files=("start.pth",), trained_on=""))
    assert weights.wanted(plain, {"width": "tiny"}) is None
    assert weights.identity(plain, root, {"width": "tiny"}) == "none"


def test_identity_is_the_checksum_until_the_file_changes(root: Path):
    file = root / "start.pth"
    assert weights.identity(CARD, root) == "none"
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    first = weights.identity(CARD, root)
    assert first == f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert weights.identity(CARD, root) == first  # same size and time: cached
    os.utime(file, ns=(2, 2))
    assert weights.identity(CARD, root) == f"sha256:{hashlib.sha256(b'two').hexdigest()}"


def test_a_damaged_memory_of_checksums_costs_nothing_but_time(root: Path, tmp_path: Path, monkeypatch):
    (root / "start.pth").write_bytes(b"one")
    (tmp_path / "checksums.json").write_text("{not json")
    for folder in (tmp_path, root / "start.pth" / "no-folder"):
        monkeypatch.setenv("HARNESS_CACHE", str(folder))
        assert weights.identity(CARD, root).startswith("sha256:")


def test_another_file_under_the_right_name_is_refused(root: Path):
    card = replace(CARD, pretrained=replace(CARD.pretrained, sha256="0" * 64))
    (root / "start.pth").write_bytes(b"one")
    with pytest.raises(WeightsError, match=r"expected 0000.*https://here"):
        weights.identity(card, root)
    named = replace(CARD, pretrained=PretrainedCard(files=("net-80ecf9dd.pth",), trained_on=""))
    (root / "net-80ecf9dd.pth").write_bytes(b"one")
    with pytest.raises(WeightsError, match="expected 80ecf9dd"):
        weights.identity(named, root)


def test_finding_and_identifying_never_imports_torch(root: Path):
    (root / "start.pth").write_bytes(b"one")
    code = (
        "import sys; from pathlib import Path; from harness import registry, weights\n"
        f"print([weights.identity(e.card, {str(root)!r}) for e in registry.backbones()])\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=60)


def test_every_card_names_files_that_its_options_can_fill():
    for entry in registry.backbones():
        for name in ("", *entry.card.variants):
            options = {**entry.card.options, **(entry.card.variants[name].options if name else {})}
            if entry.card.pretrained and (found := weights.wanted(entry.card, options)):
                assert not [file for file in found.files if "{" in file]
    transreid = registry.backbone("transreid:deit").card
    assert weights.wanted(transreid, {"start": "deit_x"}).files == ("deit_x.safetensors",)
    assert weights.wanted(transreid, {"width": "tiny"}) is None


def test_what_the_hub_sends_is_kept_under_the_cards_name(root: Path, tmp_path: Path, monkeypatch):
    sent = tmp_path / "model.safetensors"
    save_file(STATE, sent)
    asked = []
    hub = types.SimpleNamespace(
        hf_hub_url="https://hub.test/{}/{}".format,
        get_hf_file_metadata=lambda url: None,
        hf_hub_download=lambda *names: asked.append(names) or str(sent),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    card = replace(CARD, pretrained=replace(CARD.pretrained, hub="us/{width}:model.safetensors"))
    assert weights.fetch(card, root) == root / "base.safetensors"
    assert weights.fetch(card, root) == root / "base.safetensors"
    assert asked == [("us/base", "model.safetensors")]
    assert weights.fetch(replace(card, pretrained=None), root) is None


def test_each_file_has_its_own_place(root: Path):
    page, net = "https://net", "us/{width}:model.safetensors"
    start = replace(CARD.pretrained, files=("{width}.pth",), urls={"big*": page}, hubs={"bas*": net})
    card = replace(CARD, pretrained=start)
    places = {width: weights.wanted(card, {"width": width}) for width in ("base", "big")}
    assert (places["base"].url, places["base"].hub) == ("https://here", "us/base:model.safetensors")
    assert (places["big"].url, places["big"].hub) == (page, "")
    with pytest.raises(WeightsError, match=r"by hand\. Download big\.pth, see https://net, and put it into"):
        weights.fetch(card, root, {"width": "big"})


def test_no_file_is_looked_for_on_the_page_of_another():
    for name in ("agw:ibn", "agw", "lightmbn", "lightmbn:resnet50", "transreid:deit", "transreid"):
        entry = registry.backbone(name)
        found = weights.wanted(entry.card, entry.options())
        assert found and "{" not in found.url + found.hub
        if found.hub:
            assert found.url == f"https://huggingface.co/{found.hub.partition(':')[0]}"
        else:
            assert "github.com" in found.url


def test_without_a_network_the_user_is_told_what_to_put_where(root: Path, monkeypatch):
    sent = root / "cached.safetensors"
    save_file(STATE, sent)
    cached: list[bool] = []

    def refuse(url):
        raise OSError("no route to host")

    def download(*names, local_files_only=False):
        assert local_files_only, "the hub's client would retry for half a minute"
        if not cached:
            raise FileNotFoundError("not in the cache")
        return str(sent)

    hub = types.SimpleNamespace(
        hf_hub_url="https://hub.test/{}/{}".format, get_hf_file_metadata=refuse, hf_hub_download=download
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    start = replace(CARD.pretrained, hub="us/net:model.safetensors")
    card = replace(CARD, pretrained=start)
    with pytest.raises(WeightsError, match=r"^No connection to hub\.test: .* cannot be downloaded\. ") as caught:
        weights.fetch(card, root)
    for part in ("start.pth", str(root), "https://here"):
        assert part in str(caught.value)
    named = replace(start, files=("a.pth", "b.pth"), url="https://here/b.pth")
    with pytest.raises(
        WeightsError, match=rf"Download b\.pth from https://here/b\.pth and put .*{root}\. Also accepted: a"
    ):
        weights.fetch(replace(card, pretrained=named), root)
    cached.append(True)
    assert weights.fetch(card, root) is not None, "from the cache of the hub's client"


def test_an_answer_of_the_hub_is_not_taken_for_a_lost_connection(root: Path, monkeypatch):
    class NotThere(Exception):
        response = "404"

    def refuse(*_):
        raise NotThere("404: no such file.")

    hub = types.SimpleNamespace(hf_hub_url="{}/{}".format, get_hf_file_metadata=refuse, hf_hub_download=refuse)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    card = replace(CARD, pretrained=replace(CARD.pretrained, hub="us/net:model.safetensors"))
    with pytest.raises(
        WeightsError, match=r"^The starting .* cannot be downloaded \(NotThere: 404: no such file\)\. Down"
    ):
        weights.fetch(card, root)


@pytest.mark.parametrize("form", ["pth", "safetensors", "npz", "wrapped", "parallel", "trainer"])
def test_every_form_of_file_gives_the_same_tensors(tmp_path: Path, form):
    path = tmp_path / f"file.{form if form in ('safetensors', 'npz') else 'pth'}"
    parallel = {f"module.{key}": value for key, value in STATE.items()}
    if form == "safetensors":
        save_file(STATE, path)
    elif form == "npz":
        np.savez(path, **{key: value.numpy() for key, value in STATE.items()})
    elif form == "trainer":
        extra = {"epoch": 3, "best": np.float64(0.5), "args": argparse.Namespace(lr=1), "optimizer": {"state": {}}}
        torch.save({**extra, "model_state_dict": parallel}, path)
    else:
        torch.save({"pth": STATE, "wrapped": {"state_dict": STATE}, "parallel": {"model": parallel}}[form], path)
    found = weights.load_state(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_a_prefix_that_only_some_keys_have_is_part_of_the_name():
    mixed = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert weights.unwrap(mixed).keys() == mixed.keys()


class Bomb:
    fuse: Path

    def __reduce__(self):
        return (Path.touch, (self.fuse,))


def test_code_in_a_checkpoint_does_not_run_unless_trusted(tmp_path: Path):
    bomb = Bomb()
    bomb.fuse = tmp_path / "went-off"
    torch.save({"model": STATE, "extra": bomb}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match="--trust-pickle"):
        weights.load_state(tmp_path / "bomb.pth")
    assert not bomb.fuse.exists()
    assert weights.load_state(tmp_path / "bomb.pth", trust_pickle=True).keys() == STATE.keys()
    assert bomb.fuse.exists()


def test_trusted_pickled_module_is_read_without_its_code(tmp_path: Path, monkeypatch):
    gone = types.ModuleType("modeling_that_is_gone")
    gone.Baseline = type("Baseline", (nn.Module,), {"__module__": gone.__name__})
    monkeypatch.setitem(sys.modules, gone.__name__, gone)
    net = gone.Baseline()
    net.a = nn.Linear(3, 2)
    torch.save(net, tmp_path / "whole.pth")
    expected = {key: value.clone() for key, value in net.state_dict().items()}
    monkeypatch.delitem(sys.modules, gone.__name__)
    with pytest.raises(WeightsError, match="--trust-pickle"):
        weights.load_state(tmp_path / "whole.pth")
    found = weights.load_state(tmp_path / "whole.pth", trust_pickle=True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"PK\x03\x04 cut off", "truncated"), (pickle.dumps({"a": 1}, protocol=2), "a pickle that torch")],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content, says):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        weights.load_state(tmp_path / "file.pth")


def test_a_file_without_tensors_or_without_existence_is_refused(tmp_path: Path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "no.pth")
    with pytest.raises(WeightsError, match="the keys epoch, lr"):
        weights.load_state(tmp_path / "no.pth")
    with pytest.raises(WeightsError, match="does not exist"):
        weights.load_state(tmp_path / "nowhere.pth")


def net() -> nn.Module:
    module = nn.Module()
    module.a = nn.Linear(3, 2)
    return module


def test_strict_load_names_what_is_wrong_and_changes_nothing():
    module = net()
    before = module.a.bias.detach().clone()
    with pytest.raises(WeightsError) as caught:
        weights.strict_load(module, {"a.weight": torch.zeros(9, 3), "b.weight": torch.zeros(1)})
    for part in ("1 missing: a.bias", "1 unexpected: b.weight", "a.weight (9x3 in the file, 2x3 in the model)"):
        assert part in str(caught.value)
    with pytest.raises(WeightsError):
        weights.strict_load(module, {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2), "c": torch.zeros(1)})
    assert torch.equal(module.a.bias, before)


@pytest.mark.parametrize("form", ["absent", "of shape [1]"])
def test_counters_of_batches_may_be_absent_or_of_shape_1(form):
    source, module = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    state = dict(source.state_dict(), running_mean=torch.full((2,), 3.0))
    if form == "absent":
        del state["num_batches_tracked"]
    else:
        state["num_batches_tracked"] = torch.tensor([5])
    weights.strict_load(module, state)
    assert module.running_mean.tolist() == [3.0, 3.0] and module.num_batches_tracked.shape == ()
    assert int(module.num_batches_tracked) == (0 if form == "absent" else 5)


def test_strict_load_leaves_out_only_what_is_named():
    module = net()
    before = module.a.bias.detach().clone()
    given = {"a.weight": STATE["a.weight"], "a.bias": torch.zeros(7), "old.1": torch.zeros(1)}
    weights.strict_load(module, given, ignore=("old.*",), optional=("*.bias",))
    assert torch.equal(module.a.weight, STATE["a.weight"])
    assert torch.equal(module.a.bias, before)
    weights.strict_load(module, STATE, ignore=("a.*",), optional=("*.bias",))
    assert torch.equal(module.a.bias, STATE["a.bias"])  # parameters that fit are loaded, even if listed
