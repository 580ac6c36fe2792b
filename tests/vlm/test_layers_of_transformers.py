"""What milepost drives by hand inside the installed transformers is still there, by its names; what is not is said in one line."""

import inspect
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from milepost.core.errors import DataError
from milepost.vlm import layers


@pytest.mark.parametrize("experts", [False, True], ids=["dense", "experts"])
def test_the_installed_release_is_as_known(random_engine, experts: bool) -> None:
    text = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16} if experts else {}
    model = random_engine(0, text=text, vision={}, experts=experts).networks.model
    assert layers.changes(model) == [], f"transformers {transformers.__version__}: " + "; ".join(layers.changes(model))
    assert layers.cache_keyword(model.model.language_model.layers[0].forward) in layers.CACHE


def test_no_keyword_used_here_is_deprecated(engine, clips, recwarn) -> None:
    engine.score(engine.clip(clips["wide"], fps=2.0), instructions=["push"], prefixes=[2, 3])
    engine.separate(engine.clip(clips["wide"], fps=2.0), instructions=["push"], prefixes=[2])
    assert [str(each.message) for each in recwarn] == []


class Renamed(nn.Module):
    """Layers of releases past and to come. Each hands its cache what that release does."""

    def __init__(self, name: str) -> None:
        super().__init__()
        call = {
            "past_key_values": lambda cache, x: cache.update(x, x, 3),
            "cache": lambda cache, x: cache.update(x, x, 3, kwargs={"mask": None}),
            "memory": lambda cache, x: cache.update(key_states=x, value_states=x, layer_idx=3, positions=None),
        }[name]
        self.answer = lambda cache, x: (call(cache, x)[0],) if name == "past_key_values" else call(cache, x)[0]


class Old(Renamed):
    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values: "Cache | None" = None, **kwargs):
        return self.answer(past_key_values, hidden_states)


class New(Renamed):
    def forward(self, hidden_states, position_embeddings, attention_mask=None, cache: "Cache | None" = None, **kwargs):
        return self.answer(cache, hidden_states)


class Next(Renamed):
    def forward(self, hidden_states, position_embeddings, attention_mask=None, memory: "Cache | None" = None, **kwargs):
        return self.answer(memory, hidden_states)


class Keeps:
    def update(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return keys + layer, values


@pytest.mark.parametrize(("kind", "name"), [(Old, "past_key_values"), (New, "cache"), (Next, "memory")])
def test_a_layer_is_called_by_the_names_it_has(kind: type[Renamed], name: str) -> None:
    hidden = torch.zeros(1, 2, 4)
    assert layers.cache_keyword(kind.forward) == name
    assert (layers.run_layer(kind(name), hidden, mask=None, rotary=(hidden, hidden), cache=Keeps()) == 3).all()


def test_a_release_that_changed_is_refused_in_one_line(random_engine, monkeypatch) -> None:
    model = random_engine(0, text={}, vision={}).networks.model
    layer = type(model.model.language_model.layers[0])

    def forward(self, hidden_states, rotary, attention_mask=None, **kwargs): ...

    monkeypatch.setattr(layer, "forward", forward)
    with pytest.raises(DataError, match=r"takes no position_embeddings; .*takes no cache.*pip install 'transformers>=5\.4,<") as refusal:
        layers.require_known(model)
    assert "\n" not in str(refusal.value)


def test_the_cache_is_called_as_transformers_own_caches_are() -> None:
    """An update by position and by name, with whatever else a release hands on."""
    handed = inspect.signature(layers._TransformersCache.update)
    for more in ({}, {"kwargs": {}}, {"cache_kwargs": None}):
        handed.bind(SimpleNamespace(), torch.zeros(1), torch.zeros(1), layer_idx=0, **more)
    handed.bind(SimpleNamespace(), torch.zeros(1), torch.zeros(1), 0, {"cache_position": None})
    own = list(inspect.signature(transformers.Cache.update).parameters)
    assert own[1:4] == ["key_states", "value_states", "layer_idx"]
