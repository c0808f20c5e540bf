"""The estimate of a training's time follows what is computed."""

from dataclasses import replace

import pytest

from csreft_core.base.speed import Speed, measure_speed
from csreft_core.config import preset
from csreft_core.training.duration import training_seconds


def test_hand_computed():
    config = preset("recommended")
    config = replace(
        config,
        adapter=replace(config.adapter, layers=(1, 3)),
        train=replace(config.train, steps=10, batch_size=4, eval_every=5),
    )
    speed = Speed(token_s=0.01, step_s=1.0)
    # A step: 4 rows of 5 tokens at 0.01 s = 0.2 s, back through 2 of 4 blocks: 0.3 s.
    # Three evaluations of 6 rows, each read twice: 3 * 6 * 2 * 5 * 0.01 = 1.8 s.
    seconds = training_seconds(config, speed, n_layers=4, length=5, n_validation=6)
    assert seconds == pytest.approx(10 * 0.3 + 1.8)
    # 32 tokens read, 16 written.
    assert speed.answer_s == pytest.approx(32 * 0.01 + 16 * 1.0)


def test_a_measured_base(tiny_llama):
    speed = measure_speed(tiny_llama)
    # Reading many tokens at once is faster than one by one on any machine.
    assert 0 < speed.token_s < speed.step_s
