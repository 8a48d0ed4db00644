"""CLIP's text transformer is open_clip's own; what it says of classes is asked once and kept."""

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_clip
import torch

from crosswatch.errors import UserError
from crosswatch.features.settings import ClipConfig
from crosswatch.features.text.clip_text import ClipText, load_clip_text
from crosswatch.models.clipfusion_vad import ClipFusionVad
from crosswatch.models.layers.class_text import PLACES, PromptedClasses
from crosswatch.models.settings.vad import VadConfig
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape, WeightsConfig

WIDTH = tiny_clip.WIDTH
TEXT = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2}
PROMPTS = ("normal", "fighting", "car accident")
SHAPE = InputShape(classes=3, widths=(WIDTH,))
CONFIG = VadConfig(class_text="clip", prompts=PROMPTS, length=8, window=4, layers=1)


@pytest.fixture(scope="module", autouse=True)
def whole_vocabulary() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_clip.CONFIG, "text_cfg", TEXT)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, whole_vocabulary: None) -> Path:
    return tiny_clip.save_folder(tmp_path_factory.mktemp("clip") / "tiny")


def named(path: Path | str, **changes: Any) -> ClipConfig:
    return ClipConfig(weights=WeightsConfig(source=str(path)), **changes)


@pytest.fixture(scope="module")
def tower(folder: Path) -> ClipText:
    return load_clip_text(named(folder))


def prompted(tower: ClipText, prompts: tuple[str, ...] = PROMPTS, learned: int = 3) -> Any:
    torch.manual_seed(1)
    return PromptedClasses(prompts, WIDTH, learned=learned, tower=tower)


def video(seed: int = 0) -> Tokens:
    chance = torch.Generator().manual_seed(seed)
    return Tokens(torch.randn(2, 6, WIDTH, generator=chance), torch.ones(2, 6, dtype=torch.bool))


def test_answers_are_those_of_open_clip(folder: Path, tower: ClipText) -> None:
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    texts = ["a normal day", "roadAccidents", "fire!"]
    with torch.no_grad():
        theirs = model.eval().encode_text(open_clip.tokenize(texts))
        for text, expected in zip(texts, theirs, strict=True):
            words = (tower.start, *tower.tokens(text), tower.end)
            answer = tower.answer(tower.embed(words)[None], torch.tensor([len(words) - 1]))
            torch.testing.assert_close(answer[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_file_of_a_known_model_is_read(tmp_path: Path, tower: ClipText, ending: str) -> None:
    model = tiny_clip.register(tmp_path)
    file = tiny_clip.save_file(tmp_path / f"weights{ending}")
    again = load_clip_text(named(file, model=model))
    assert torch.equal(again.embed((1, 2)), tower.embed((1, 2)))
    assert again.sha256 != tower.sha256


@pytest.mark.parametrize("learned", [0, 4, 10])
def test_a_prompt_is_start_learned_text_learned_end(tower: ClipText, learned: int) -> None:
    config = dataclasses.replace(CONFIG, prompt_len=learned)
    classes = config.build(SHAPE, tower).class_text
    torch.nn.init.normal_(classes.context_ND)  # every place another
    heard: list[torch.Tensor] = []
    real = tower.answer

    def listen(embedded: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        heard.extend((embedded, end))
        return real(embedded, end)

    classes.tower = copy.copy(tower)
    classes.tower.answer = listen
    classes.train()()
    embedded, end = heard
    lengths = [len(tower.tokens(text)) for text in PROMPTS]
    assert lengths == [1, 1, 2]
    assert end.tolist() == [2 * learned + length + 1 for length in lengths]
    start, stop = tower.embed((tower.start, tower.end))
    for row, (text, last) in enumerate(zip(PROMPTS, end.tolist(), strict=True)):
        words, context = tower.embed(tower.tokens(text)), classes.context_ND
        before, behind = context[1 : 1 + learned], context[last - learned : last]
        expected = torch.cat((start[None], before, words, behind, stop[None]))
        assert torch.equal(embedded[row, : last + 1], expected)


def test_what_stands_behind_the_end_has_no_influence(tower: ClipText) -> None:
    """Hence only so many of the 77 places are computed."""
    classes = prompted(tower)
    whole = classes.context_ND.expand(3, -1, -1).clone()
    count = classes.fixed_KND.shape[1]
    whole[:, :count] = torch.where(
        classes.is_fixed_KN[..., None], classes.fixed_KND, whole[:, :count]
    )
    everything = tower.answer(whole, classes.end_K)
    assert count < PLACES
    torch.testing.assert_close(classes.train()(), everything, atol=1e-6, rtol=1e-5)


def test_gradients_reach_the_learned_places_alone(tower: ClipText) -> None:
    classes = prompted(tower)
    classes.train()().square().sum().backward()
    moved = classes.context_ND.grad.abs().sum(1) > 0
    assert moved.nonzero()[:, 0].tolist() == [1, 2, 3, 5, 6, 7, 8]  # 4: text in every prompt
    assert [name for name, _ in classes.named_parameters()] == ["context_ND"]
    assert sorted(classes.state_dict()) == ["context_ND", "text_KD"]


def stepped(model: ClipFusionVad) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    scores = model.train()(video())
    (scores.text_KD.square().sum() + scores.anomaly_B().sum()).backward()
    optimizer.step()


def test_a_reloaded_detector_scores_without_clip(tower: ClipText) -> None:
    model = CONFIG.build(SHAPE, tower)
    stepped(model)
    in_training = copy.deepcopy(model.state_dict())  # best weights may be taken at any time
    with torch.inference_mode():
        before = model.eval()(video())
    for state in (in_training, model.state_dict()):
        again = CONFIG.build(SHAPE)
        again.load_state_dict(state)
        with torch.inference_mode():
            after = again.eval()(video())
        assert torch.equal(before.class_logit_BLK, after.class_logit_BLK)
        assert torch.equal(before.text_KD, after.text_KD)


def test_texts_are_asked_once_a_step_and_once_an_evaluation(tower: ClipText) -> None:
    model, asked = CONFIG.build(SHAPE, tower), []
    real = model.class_text._ask
    model.class_text._ask = lambda: asked.append(1) or real()
    stepped(model)
    assert len(asked) == 1
    model.eval()
    with torch.no_grad():
        first = model(video()).text_KD.clone()
        model(video(1))
    assert len(asked) == 2
    stepped(model)
    assert len(asked) == 3
    with torch.no_grad():
        assert not torch.equal(model.eval()(video()).text_KD, first)
    assert len(asked) == 4


def test_weights_that_are_loaded_are_asked_for_anew(tower: ClipText) -> None:
    model, other = CONFIG.build(SHAPE, tower), CONFIG.build(SHAPE, tower)
    stepped(other)
    with torch.no_grad():
        kept = model.eval()(video()).text_KD.clone()
        model.load_state_dict(other.state_dict())
        found = model(video()).text_KD
        assert torch.equal(found, other.eval()(video()).text_KD)
        assert not torch.equal(found, kept)


def test_a_model_that_knows_no_text_does_not_seem_to_score() -> None:
    model = CONFIG.build(SHAPE)
    with torch.no_grad():
        assert model.eval()(video()).class_logit_BLK.isnan().all()
    with pytest.raises(AssertionError, match="trained with a text tower"):
        model.train()(video())


def test_texts_are_whole_numbers_of_float32_under_bf16(tower: ClipText) -> None:
    model = CONFIG.build(SHAPE, tower)
    with torch.no_grad():
        expected = model.eval()(video()).text_KD.clone()
        model.class_text.made_of_ND.fill_(torch.nan)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model(video()).text_KD, expected)
    with torch.autocast("cpu", torch.bfloat16):
        trained = model.train()(video()).text_KD
    assert trained.dtype == torch.float32
    torch.testing.assert_close(trained, expected, atol=0.1, rtol=0.1)


def test_texts_that_are_too_long_are_refused(tower: ClipText) -> None:
    with pytest.raises(UserError, match=r"'fire.* has 60 tokens; allowed 55 with prompt_len 10"):
        prompted(tower, ("normal", "fire " * 60), learned=10)


def test_a_tower_of_another_width_is_refused(tower: ClipText) -> None:
    with pytest.raises(UserError, match="takes 24 and answers 24 wide, and features are 16 wide"):
        CONFIG.build(InputShape(classes=3, widths=(16,)), tower)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"no_causal_mask": True}, "no_causal_mask: True"),
        ({"pool_type": "last"}, "pool_type: last"),
        ({"vocab_size": 64}, "vocab_size: 64"),
        ({"hf_model_name": "roberta-base"}, "hf_model_name: roberta-base"),
    ],
)
def test_text_towers_of_another_kind_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    folder = tiny_clip.save_folder(tmp_path / "tiny")
    config = folder / "open_clip_config.json"
    told = json.loads(config.read_text())
    told["model_cfg"]["text_cfg"] |= change
    config.write_text(json.dumps(told))
    with pytest.raises(UserError, match=rf"features\.clip\.weights\.source: .*{words}"):
        load_clip_text(named(folder))


def test_weights_without_a_text_tower_are_refused(tmp_path: Path) -> None:
    import safetensors.torch

    model = tiny_clip.register(tmp_path)
    file = tiny_clip.save_file(tmp_path / "whole.safetensors")
    tensors = safetensors.torch.load_file(file)
    pictures = {name: each for name, each in tensors.items() if name.startswith("visual.")}
    safetensors.torch.save_file(pictures, tmp_path / "pictures.safetensors")
    with pytest.raises(UserError, match=r"it lacks .*Set train\.clip\.model to the model"):
        load_clip_text(named(tmp_path / "pictures.safetensors", model=model), section="train.clip")


def test_missing_weights_name_option_files_and_alternative(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"train\.clip\.weights\.source names no weights.*class_text"
    ):
        load_clip_text(named(""), section="train.clip")
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        load_clip_text(named(tmp_path / "nowhere.pt"))


def test_wrong_digests_are_refused(folder: Path) -> None:
    weights = WeightsConfig(source=str(folder), sha256="0" * 64)
    with pytest.raises(UserError, match=r"features\.clip\.weights\.sha256 is 0000"):
        load_clip_text(ClipConfig(weights=weights))
