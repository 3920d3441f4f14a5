"""Random models of the transformers library with a few thousand weights each, saved like real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["a", "the", "dog", "cat", "red", "blue", "ball", "rolls", "barks", "to", "left", "small", "tree", "and"]
SAMPLE_RATE_HZ = 16000


def _transformers() -> Any:
    import torch

    from trichord.features.model_files import import_transformers

    torch.manual_seed(0)
    return import_transformers("tests")


def _saved(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def clap(folder: Path, *, fusion: bool = False) -> Path:
    """Return a model with windows of 1 s at 8 kHz and width 32."""
    t = _transformers()
    audio = {
        "spec_size": 64, "num_mel_bins": 16, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4],
        "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16,
        "num_hidden_layers": 2, "enable_fusion": fusion, "num_classes": 3, "aff_block_r": 2, "projection_dim": 32,
    }  # fmt: skip
    text = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 20, "projection_dim": 32,
    }  # fmt: skip
    model = t.ClapModel(t.ClapConfig(text_config=text, audio_config=audio, projection_dim=32))
    extractor = t.ClapFeatureExtractor(
        feature_size=16, sampling_rate=8000, hop_length=80, max_length_s=1, fft_window_size=256, frequency_max=4000,
        truncation="fusion" if fusion else "rand_trunc",
    )  # fmt: skip
    return _saved(folder, model, extractor, tokenizer(20))


def ast(folder: Path) -> Path:
    """Return a model with windows of 0.64 s at 16 kHz and width 16."""
    t = _transformers()
    config = t.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=64,
        num_mel_bins=16, frequency_stride=8, time_stride=8, patch_size=8,
    )  # fmt: skip
    return _saved(folder, t.ASTModel(config), t.ASTFeatureExtractor(max_length=64, num_mel_bins=16))


def whisper(folder: Path) -> Path:
    """Return a model with segments of 3 s at 16 kHz, 50 states per second and width 16."""
    t = _transformers()
    config = t.WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=16, max_source_positions=150, max_target_positions=8,
        vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = t.WhisperModel(config)
    return _saved(folder, model, t.WhisperFeatureExtractor(feature_size=16, chunk_length=3))


def wav2vec2(folder: Path) -> Path:
    """Return a model at 16 kHz with 50 states per second and width 16."""
    t = _transformers()
    config = t.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return _saved(folder, t.Wav2Vec2Model(config), t.Wav2Vec2FeatureExtractor())


def pe_audio(folder: Path) -> Path:
    """Return a model with windows of 10 s at 1 kHz and width 16."""
    t = _transformers()
    text = {
        "model_type": "modernbert", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0,
    }  # fmt: skip
    dac = {"model_type": "dac", "encoder_hidden_size": 4, "downsampling_ratios": [2, 5], "codebook_dim": 8}
    audio = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8,
        "dac_config": dac,
    }  # fmt: skip
    model = t.PeAudioModel(t.PeAudioConfig(text_config=text, audio_config=audio))
    return _saved(folder, model, t.PeAudioFeatureExtractor(sampling_rate=1000, hop_length=10))


def tokenizer(most_tokens: int) -> Any:
    """Return a tokenizer of the words in `WORDS` between two marks; all other words have one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    t = _transformers()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    return t.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]", model_max_length=most_tokens,
    )  # fmt: skip


def bert(folder: Path) -> Path:
    """Return a model with width 16 and 12 tokens."""
    t = _transformers()
    config = t.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12,
    )  # fmt: skip
    return _saved(folder, t.BertModel(config), tokenizer(100))


def _two_towers(folder: Path, kind: str) -> Path:
    t = _transformers()
    shared = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**shared, "vocab_size": 40, "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**shared, "image_size": 8, "patch_size": 4}
    if kind == "clip":
        config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        return _saved(folder, t.CLIPModel(config), tokenizer(12))
    config = t.SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=vision)
    return _saved(folder, t.SiglipModel(config), tokenizer(12))


def clip(folder: Path) -> Path:
    """Return a model with width 24 and 12 tokens."""
    return _two_towers(folder, "clip")


def siglip(folder: Path) -> Path:
    """Return a model with width 16 and 12 tokens, always padded."""
    return _two_towers(folder, "siglip")
