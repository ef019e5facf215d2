import json

from faceswap.training import curves


def test_corrupt_lines_are_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = [{"step": 1, "loss_a": 0.3, "loss_b": 0.2}, {"step": 2, "ssim_a": 0.5, "ssim_b": 0.6}]
    lines = [json.dumps(good[0]), "{half", "[]", json.dumps(good[1])]
    path.write_text("\n".join(lines) + '\n{"step": 3')

    assert curves.read_metrics(path) == good
    assert curves.curves(path).startswith(b"\x89PNG")


def test_run_without_metrics_draws_empty_axes(tmp_path):
    assert curves.curves(tmp_path / "none.jsonl").startswith(b"\x89PNG")
