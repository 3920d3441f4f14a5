"""The mutants that `mutants.py` tries: the changes of the source, and the tests that must notice them."""

# ruff: noqa: E501 - a mutant is read best on two lines, whatever the length of the text

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file` (below src/trichord), the text `old`, which occurs once, becomes `new`; `tests` must notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


PINNED = "training/test_pinned_training.py"
CACHE_NAME = (f"{PINNED}::test_the_name_of_a_frozen_cache_depends_on",)
KEYS = ("study/test_golden_keys.py",)
SETTING = ("training/test_pinned_settings.py",)

LOSSES = (
    Mutant("mms one way", "losses/contrast.py", "(logits.logsumexp(0) - truth).mean()",
           "(logits.logsumexp(1) - truth).mean()", ("losses/test_contrast.py",)),
    Mutant("mms margin", "losses/contrast.py", "kept - margin * torch.eye", "kept + margin * torch.eye", ("losses/test_contrast.py",)),
    Mutant("share of invalid rows", "losses/contrast.py", "kept = scores[valid[place]][:, valid]", "kept = scores[valid[place]]",
           ("losses/test_contrast.py::test_shares_add_up_to_the_contrast_and_so_do_their_gradients",)),
    Mutant("mil-nce column negatives", "losses/contrast.py", "column_negatives = _logsumexp(kept, ~positives, 0)",
           "column_negatives = _logsumexp(kept, ~positives, 1)", ("losses/test_contrast.py::test_mil_nce_oracle",)),
    Mutant("contrast weight", "losses/combined.py", "total = self.contrast_weight * contrast", "total = contrast",
           ("losses/test_combined.py",)),
    Mutant("fused mean", "losses/combined.py", "return total / count.clamp(min=1)[:, None], count > 0",
           "return total / len(names), count > 0", ("losses/test_combined.py",)),
    Mutant("reconstruction target", "losses/reconstruction.py", "    if detach_target:", "    if not detach_target:",
           ("losses/test_contrast.py",)),
    Mutant("cluster margin", "losses/clustering.py", "scores = scores - margin * functional.one_hot(labels",
           "scores = scores - 0 * functional.one_hot(labels", ("losses/test_clustering.py",)),
    Mutant("refit one step late", "losses/clustering.py", "self.steps_since_fit >= self.refit_every",
           "self.steps_since_fit > self.refit_every", ("losses/test_clustering.py",)),
    Mutant("same draw at each fit", "losses/clustering.py", "self.seed * 1_000_003 + self.num_fits", "self.seed * 1_000_003",
           ("losses/test_clustering.py::test_reset_draws_afresh",)),
    Mutant("plain k-means sums", "losses/kmeans.py", "members.T @ (units if normalize else rows)", "members.T @ rows",
           ("losses/test_kmeans.py::test_oracle",)),
    Mutant("reseed with the best row", "losses/kmeans.py", "value, place = misfit.max(0)", "value, place = misfit.min(0)",
           ("losses/test_kmeans.py::test_empty_clusters",)),
)  # fmt: skip

DATA = (
    Mutant("clip growth tie", "data/clips.py", "take_left = with_left <= with_right", "take_left = with_left < with_right",
           ("data/test_clips.py",)),
    Mutant("clips leave their video", "data/clips.py", "has_left, has_right = left >= lowest[grows], right <= highest[grows]",
           "has_left, has_right = left >= 0, right < len(end)",
           ("data/test_clips.py::test_all_videos_at_once_equal_single_videos",)),
    Mutant("first clips of each video", "data/batches.py", "return shuffled[np.sort(kept)]", "return shuffled[kept]",
           ("data/test_pinned_batches.py",)),
    Mutant("same shuffle in each epoch", "data/batches.py", "np.random.default_rng([self.seed, epoch]).permutation",
           "np.random.default_rng([self.seed]).permutation", ("data/test_pinned_batches.py",)),
    Mutant("same clips in each epoch", "data/batches.py", "rng = np.random.default_rng([self.seed, epoch, step])",
           "rng = np.random.default_rng([self.seed, step])", ("data/test_pinned_batches.py",)),
    Mutant("first half rounded down", "data/batches.py", "mine[: (len(mine) + 1) // 2]", "mine[: len(mine) // 2]",
           ("data/test_batches.py",)),
    Mutant("positives of other videos", "data/batches.py", "return same & touch", "return touch", ("data/test_batches.py",)),
    Mutant("silent clips count", "modalities/audio.py", '"audio_frames": frames}, frames > 0',
           '"audio_frames": frames}, frames >= 0', ("data/test_batches.py",)),
    Mutant("pooled features without length", "modalities/gather.py", "            block /= np.maximum(lengths, np.float32(1e-12))[:, None]\n",
           "            block /= np.maximum(lengths.max(), np.float32(1e-12))\n", ("data/test_batches.py",)),
    Mutant("padded words in the maximum", "layers/encoders.py", "words = words.masked_fill(~keep[:, :, None], 0.0)",
           "words = words.masked_fill(keep[:, :, None] & False, 0.0)", ("nn/test_nn.py::test_text_padding",)),
    Mutant("padded frames in the mean", "layers/encoders.py", "return (sums / num_steps.clamp(min=1)[:, None])",
           "return (sums / features.shape[-1])", ("nn/test_nn.py::test_audio_padding_changes_nothing",)),
)  # fmt: skip

TRAINING = (
    Mutant("pairs of frozen modalities", "training/stage.py", "for pair in pairs_of(train + before) if set(pair) & set(train) or",
           "for pair in pairs_of(train + before) if set(pair) or", ("training/test_stages.py",)),
    Mutant("frozen norms in train mode", "training/stage.py", "    model.requires_grad_(False)\n    model.eval()\n",
           "    model.requires_grad_(False)\n    model.train()\n", ("training/test_stages.py",)),
    Mutant("unguarded buffers", "training/stage.py", "for name, tensor in model.state_dict(keep_vars=True).items() if",
           "for name, tensor in model.named_parameters() if", ("training/test_stages.py",)),
    Mutant("no fresh weights", "study/run.py",
           "model = _with_fresh(model, factories.build_model(recipe, store, planned.seed), planned)", "model = model",
           (f"{PINNED}::test_seeds_that_share_a_first_stage_begin_the_later_one_with_weights_of_their_own",)),
    Mutant("one seed for all weights", "study/factories.py", "torch.manual_seed(seed)", "torch.manual_seed(0)",
           ("training/test_training.py::test_initial_weights_depend_on_the_seed_alone",)),
    Mutant("no clipping", "training/loop.py", "    if limit > 0 and math.isfinite(norm):", "    if limit < 0:",
           (PINNED,)),
    Mutant("clipping after the step", "training/loop.py", "norm = _grad_norm(accelerator, parameters, training.clip_grad_norm)",
           "norm = _grad_norm(accelerator, parameters, 0.0)", (PINNED,)),
    Mutant("thawed at the full rate", "training/optimizer.py", "stage.thawed: training.learning_rate * thaw",
           "stage.thawed: training.learning_rate", ("training/test_training.py::test_thawed_modalities_train_on_at_their_part_of_the_rate",)),
    Mutant("reset of centroids on resuming", "training/loop.py",
           "settings.reset_clusters_every_epoch and position.epoch_step == 0:", "settings.reset_clusters_every_epoch:",
           (PINNED,)),
    Mutant("cosine from step 0", "training/schedule.py", "progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)",
           "progress = step / max(1, num_steps)", ("training/test_stages.py::test_the_rate_rises_then_never_rises_again", PINNED)),
    Mutant("whole warm-up", "training/schedule.py", "return min(warmup_steps, num_steps // 10)", "return min(warmup_steps, num_steps)",
           ("training/test_stages.py::test_the_rate_rises_then_never_rises_again",)),
    Mutant("norms move twice a step", "training/gradient_cache.py", "                buffer.copy_(before)", "                pass",
           ("training/test_gradient_cache.py",)),
    Mutant("gradient of the first chunk", "training/gradient_cache.py", "leaf.grad[rows].to", "leaf.grad[: rows.stop - rows.start].to",
           ("training/test_gradient_cache.py",)),
    Mutant("gradient not looked at", "training/loop.py", "                guard.check_gradient(norm)\n", "",
           ("study/test_guards.py::test_a_gradient_that_is_not_finite",)),
    Mutant("dump of moved buffers", "training/guard.py", "yield name, self._kept.get(name, tensor)", "yield name, tensor",
           ("study/test_guards.py::test_the_dump_holds_the_state_before_the_step",)),
    Mutant("worst checkpoints kept", "training/checkpoint.py", "key=lambda path: (losses[path], _step(path)))[:keep_best]",
           "key=lambda path: (-losses[path], _step(path)))[:keep_best]",
           ("training/test_checkpoint.py::test_the_policy_keeps_the_last_and_the_best",)),
    Mutant("torch's state not restored", "training/random_states.py", 'torch.set_rng_state(states["torch"])', "pass",
           ("training/test_checkpoint.py::test_every_bit_is_restored",)),
    Mutant("cache without max_words", "training/frozen.py", "        **asdict(reader.settings),  #",
           '        **{name: value for name, value in asdict(reader.settings).items() if name != "max_words"},  #', CACHE_NAME),
    Mutant("cache without min_clip_s", "training/frozen.py", '        "min_clip_s": source.min_clip_s,\n', "", CACHE_NAME),
    Mutant("cache without videos", "training/frozen.py", '        "videos": hashlib.sha256(source.items.tobytes()).hexdigest(),\n', "",
           CACHE_NAME),
    Mutant("cache without weights", "training/frozen.py", '        "weights": weights.hexdigest(),\n', "",
           (f"{PINNED}::test_the_name_of_a_frozen_cache_depends_on_the_encoder_of_its_modality_alone",)),
    Mutant("key without the parent", "study/plan.py", '"parent": parent.key if parent else None', '"parent": None', KEYS),
    Mutant("key without clipping", "recipes/identity.py", '"log_every_steps", "tensorboard", "checkpoint_every_steps", "device",',
           '"log_every_steps", "tensorboard", "checkpoint_every_steps", "device", "clip_grad_norm",', KEYS),
)  # fmt: skip

EVALUATION = (
    Mutant("ties for the truth", "evaluation/ranks.py", "ranks = 1 + greater + (equal - 1) / 2 if", "ranks = 1 + greater if",
           ("evaluation/test_ranks.py::test_expected_over_random_tie_breaks",)),
    Mutant("missing queries at the end of the gallery", "evaluation/ranks.py", "float(num_gallery + num_missing)", "float(num_gallery)",
           ("evaluation/test_ranks.py::test_missing_queries",)),
    Mutant("missing queries dropped", "evaluation/ranks.py", "        num_queries += num_missing\n", "",
           ("evaluation/test_ranks.py::test_missing_queries",)),
    Mutant("NaN first", "evaluation/counts.py", "greater[truth_is_nan], equal[truth_is_nan] = num_gallery, 1",
           "greater[truth_is_nan], equal[truth_is_nan] = 0, 1", ("evaluation/test_ranks.py::test_nan_is_the_worst_and_never_a_hit",)),
    Mutant("chance of the found", "tasks/retrieval/measure.py", "chance_recall(k, len(gallery), truths) * share for k",
           "chance_recall(k, len(gallery), truths) for k", ("evaluation/test_pinned_figures.py",)),
    Mutant("dual softmax over the gallery", "tasks/retrieval/dual_softmax.py", "    scores -= attention\n", "    scores -= attention.mean()\n",
           ("tasks/test_retrieval.py::test_dual_softmax_against_loops",)),
    Mutant("biased variance of queries", "evaluation/variance.py", "query_means.var(-1, ddof=1)", "query_means.var(-1, ddof=0)",
           ("evaluation/test_statistics.py::test_one_seed_is_the_paired_t_test", "evaluation/test_statistics.py::test_mean_squares_against_loops")),
    Mutant("few wins overrated", "evaluation/statistics.py", "return replace(difference, within=difference.within + extra)", "return difference",
           ("evaluation/test_statistics.py::test_one_seed_agrees_with_mcnemar", "evaluation/test_statistics.py::test_few_wins_are_not_overrated")),
    Mutant("holm not cumulative", "evaluation/statistics.py", "np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))",
           "(p[order] * np.arange(len(p), 0, -1))", ("evaluation/test_statistics.py::test_holm_against_its_definition",)),
    Mutant("power without holm", "evaluation/power.py", "alpha = check_level(level) / num_pairs", "alpha = check_level(level)",
           ("evaluation/test_pinned_figures.py",)),
    Mutant("winner without holm", "evaluation/comparison.py", "if not pair.p_adjusted < alpha]", "if not pair.p < alpha]",
           ("evaluation/test_pinned_figures.py",)),
    Mutant("cosine of raw rows", "embedder/scores.py", "one, two = unit(one), unit(two)", "one, two = unit(one), two",
           ("embedder/test_embedder.py::test_similarity_and_fusion_are_those_of_the_recipe",)),
)  # fmt: skip

SOURCES = (
    Mutant("oldest version of an item", "store/columns.py", "newest = np.zeros(int(items.max()) + 1, dtype=np.int64)\n    np.maximum.at",
           "newest = np.full(int(items.max()) + 1, len(items), dtype=np.int64)\n    np.minimum.at", ("extraction/test_superseded.py",)),
    Mutant("fingerprint of tensors alone", "store/columns.py", 'f"{part.info.sha256} {part.info.rows_sha256}\\n"', 'f"{part.info.sha256}\\n"',
           ("store/test_store.py::test_the_fingerprint_depends_on_content_alone",)),
    Mutant("doubtful ids", "ids.py", "if len(candidates) > 1:", "if len(candidates) > 2:", ("releases/test_ids.py",)),
    Mutant("two names of one clip", "ids.py", "        if match in first:", "        if match in names:", ("releases/test_ids.py",)),
    Mutant("rolled lines overlap", "captions/rolling.py", "newest.end_s = min(newest.end_s, cue.start_s)",
           "newest.end_s = max(newest.end_s, cue.start_s)", ("captions/test_captions_rolling.py",)),
    Mutant("growth inside a word", "captions/rolling.py", r"""(after.isalnum() or after in "'\u2019-") and shown[-1].isalnum()""", "False",
           ("captions/test_captions_rolling.py::test_growth_is_at_the_end_of_a_word",)),
    Mutant("captions of unequal length", "captions/grouping.py", "(word.start_s + word.end_s) / 2 - begin_s", "word.start_s - begin_s",
           ("captions/test_captions_grouping.py",)),
    Mutant("clock goes back", "media/timeline.py", "return -back_s if back_s > (_BEGIN_BACK_S if to_begin else BACK_S) else 0.0", "return 0.0",
           ("media/test_media_times.py::test_time_continues_across_joined_transport_streams",)),
    Mutant("holes without end", "media/timeline.py", "            self._holes_s += hole_s\n", "            pass\n",
           ("media/test_media_times.py::test_many_holes_are_bounded",)),
)  # fmt: skip

SETTINGS = (
    Mutant("cluster temperature not passed on", "study/factories.py", "        cluster_temperature=loss.cluster_temperature,\n", "",
           SETTING),
    Mutant("queue that does not wait", "study/factories.py", "            wait_until_full=loss.cluster_wait_until_full,\n", "", SETTING),
    Mutant("padding level not passed on", "study/factories.py",
           "        audio_pad_db=recipe.data.audio_pad_db,\n", "", SETTING),
    Mutant("first half not asked for", "study/factories.py", 'with_first_half=recipe.loss.cluster_store == "first_half"',
           'with_first_half=False', SETTING),
    Mutant("later epochs not passed on", "study/factories.py", "epochs=later.epochs if is_later and later.epochs else training.epochs",
           "epochs=training.epochs", SETTING),
    Mutant("cosine scores not passed on", "study/factories.py", 'cosine=recipe.loss.cosine if evaluation.cosine == "auto" else',
           'cosine=False if evaluation.cosine == "auto" else', SETTING),
)  # fmt: skip

MORE = (
    Mutant("queue takes all clips", "losses/combined.py", "any_present, stored=stored, assigned=part)", "any_present, assigned=part)",
           ("evaluation/test_pinned_figures.py", "losses/test_combined.py")),
    Mutant("gradients add up", "training/loop.py", "                optimizer.zero_grad(set_to_none=True)\n", "",
           (f"{PINNED}::test_the_optimizer_takes_clipped_gradients", f"{PINNED}::test_gradients_do_not_add_up_from_step_to_step")),
    Mutant("rate stands still", "training/loop.py", "                scheduler.step()\n", "",
           ("training/test_training.py::test_golden_loss_curve_of_the_debug_recipe",)),
    Mutant("chunks of what is thawed", "training/loop.py", "trained = stage.train + stage.thawed", "trained = stage.train",
           (f"{PINNED}::test_chunks_train_thawed_modalities",)),
    Mutant("mean loss of the whole stage", "training/loop.py", "        since.clear()\n", "        pass\n",
           (f"{PINNED}::test_a_checkpoint_has_the_mean_loss_since_the_one_before",)),
    Mutant("row of another clip in the cache", "data/frozen_rows.py", "rows = self.row[begin + clips.caption]", "rows = begin + clips.caption",
           ("data/test_pinned_batches.py",)),
    Mutant("rest of a video is a clip", "data/batches.py",
           "if len(groups) > 1 and end_s[groups[-1]].max() - start_s[groups[-1]].min() < min_clip_s:", "if False:",
           ("data/test_batches.py::test_remaining_captions_join_the_last_clip",)),
    Mutant("last row of a clip", "modalities/gather.py", "(clips.end_s * rate_hz).astype(np.int64) + 1)", "(clips.end_s * rate_hz).astype(np.int64))",
           ("data/test_batches.py",)),
    Mutant("words at the end of the clip", "data/batches.py", "captions_of_clips = [order - begin for order, begin in zip(orders, shift",
           "captions_of_clips = [np.sort(order) - begin for order, begin in zip(orders, shift", ("data/test_pinned_batches.py",)),
    Mutant("two steps at one second", "tasks/steps/measure.py", "before = np.concatenate([[-np.inf], np.maximum.accumulate(best[k])[:-1]])",
           "before = np.maximum.accumulate(best[k])", ("tasks/test_localization.py::test_alignment_is_the_best_of_all_placements",)),
    Mutant("windows summed", "tasks/windows.py", "whole[there[modality]] /= counts[there[modality], None]", "pass",
           ("data/test_windows.py::test_pooling_against_loops",)),
    Mutant("one video on both sides", "tasks/labels/probes.py", "np.arange(len(kind)) if groups is None else", "np.arange(len(kind)) if True else",
           ("evaluation/test_probes.py::test_clips_of_a_video_are_on_one_side",)),
    Mutant("whole votes of ties", "tasks/labels/probes.py", "beside * (left / beside.sum(axis=1, keepdims=True))", "beside * (left > 0)",
           ("evaluation/test_probes.py::test_votes_are_the_mean_over_all_choices_of_ties",)),
    Mutant("votes for one video", "tasks/full_video/measure.py", "share / np.maximum(on_top.sum(axis=1, keepdims=True), 1)", "(share > 0)",
           ("tasks/test_full_video.py::test_the_five_ways_against_loops",)),
    Mutant("units paired by place", "report/analysis.py", "values = runs.values[:, places]", "values = runs.values",
           ("report/test_report_order_of_rows.py::test_rows_in_another_order",)),
    Mutant("interval of a large sample", "evaluation/statistics.py", "np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))",
           "np.sqrt(share * (1 - share) / effective)", ("evaluation/test_pinned_figures.py",)),
    Mutant("resolved for one reason", "store/ledger.py", 'other.get("key") or key[0] != entry["source"]}', 'other.get("key") or key[1] != entry["reason"]}',
           ("store/test_store_writer.py::test_the_ledger_keeps_each_note_once_in_one_line", "releases/test_import_faults.py")),
    Mutant("renewed item moves its split", "store/writer.py", "        if item.split != split:", "        if False:",
           ("extraction/test_superseded.py::test_a_video_keeps_its_split_and_is_not_superseded_unasked",)),
    Mutant("sum of cosines", "embedder/scores.py", '"mean_normalized" if cosine else "sum")', '"sum")',
           ("evaluation/test_pinned_figures.py",)),
    Mutant("hours of a stamp", "captions/stamps.py", "seconds = seconds * 60 + float(part[:20] or 0)", "seconds = seconds + float(part[:20] or 0)",
           ("captions/test_captions_rolling.py::test_the_words_of_a_long_stamped_cue_are_at_their_stamps", "evaluation/test_pinned_figures.py")),
    Mutant("short side of tall pictures", "media/sampling.py", "return side, max(side, int(height * side / width))", "return max(side, int(width * side / height)), side",
           ("evaluation/test_pinned_figures.py",)),
)  # fmt: skip

MODALITIES = (
    Mutant("further modalities draw from one generator", "nn/mcn.py", "            with _generator_of(m, state):\n", "            if True:\n",
           ("modalities/test_modalities.py::test_initial_weights_do_not_depend_on_further_modalities",)),
    Mutant("an input is a modality", "modalities/registry.py", "return _owners().get(name, name)", "return name",
           ("training/test_gradient_cache.py",)),
    Mutant("features are never negative", "modalities/base.py", "        return False\n", "        return True\n",
           ("modalities/test_modalities.py::test_features_are_encoded_by_a_gated_unit_and_reconstructed",)),
    Mutant("a model has the modalities of its order alone", "study/factories.py", "if m not in MODALITIES and width is not None", "if False",
           ("modalities/test_modalities.py::test_a_model_has_the_further_modalities_of_its_store",)),
    Mutant("modalities that are read are not declared", "training/models.py",
           '        declare_recorded(described.get("modalities", {}), path / DESCRIPTION)\n', "",
           ("modalities/test_feature_training.py::test_a_model_declares_its_modalities_where_it_is_read",)),
)  # fmt: skip

FITTED_RUN = ("training/test_fitted_training.py",)
FITTED = (
    Mutant("gradients of temperatures stay apart", "training/pairs.py", "if gradients and num_processes() > 1:", "if False:",
           ("losses/test_processes.py::test_two_processes_are_one",)),
    Mutant("temperatures leave their range", "training/loop.py", "                pairs.clamp()\n", "", FITTED_RUN),
    Mutant("temperature is not learned", "losses/pair.py", "return setting if self.temperature is None else self.temperature", "return setting", FITTED_RUN),
    Mutant("later stages start with old temperatures", "study/run.py", "if set(pair) & set(planned.stage.train)]", "]",
           ("training/test_fitted_training.py::test_a_replayed_pair_continues_from_its_learned_temperature",)),
    Mutant("weights of pairs are not read", "losses/combined.py", "else pair_weights.get(pair, 1.0) for pair", "else 1.0 for pair", FITTED_RUN),
    Mutant("biases decay", "training/optimizer.py", "decayed = [p for p in parameters if p.ndim > 1 and decays[modality] > 0]",
           "decayed = parameters", ("training/test_optimizer.py",)),
    Mutant("noise of the whole batch", "training/noise.py", "device=self.device)[self.rows]", "device=self.device)[: self.rows.stop - self.rows.start]",
           ("training/test_noise.py",)),
    Mutant("noise does not depend on the step", "training/noise.py", '{self.seed} {step} {modality}', '{self.seed} {modality}',
           ("training/test_noise.py",)),
    Mutant("targets with noise", "training/loop.py", "                outputs = noise.with_clean_targets(outputs, clean)\n", "",
           ("training/test_fitted_training.py::test_reconstruction_targets_are_inputs_without_noise",)),
    Mutant("a clip loses all words", "modalities/text.py", " & (numbers < largest)", "", ("training/test_noise.py",)),
    Mutant("padding is masked", "modalities/audio.py", "in_frequency[:, :, None]) & valid[:, None]", "in_frequency[:, :, None])", ("training/test_noise.py",)),
    Mutant("keys of all modalities", "recipes/identity.py", "numbers = {m: number_for(setting, m) for m in modalities}",
           "numbers = setting if isinstance(setting, dict) else {'all': setting}", FITTED_RUN),
)  # fmt: skip

MUTANTS = (*LOSSES, *DATA, *TRAINING, *EVALUATION, *SOURCES, *SETTINGS, *MORE, *MODALITIES, *FITTED)
