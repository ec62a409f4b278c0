"""What ``--json`` prints, whatever the answer holds."""

import json

import numpy as np
import pytest

from streams.cli.options import answer


@pytest.mark.parametrize(
    ("told", "printed"),
    [
        ({"name": "Zürich"}, '{"name":"Zürich"}'),
        ({"rate": float("nan")}, '{"rate":null}'),
        ([np.float64(0.5), np.int64(2), np.bool_(True)], "[0.5,2,true]"),
    ],
)
def test_an_answer_is_one_line_of_json_without_nan_and_of_numpys_numbers_too(
    told: object, printed: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    answer(told)
    assert capfdbinary.readouterr().out.decode() == printed + "\n"


def test_a_files_name_that_is_no_utf8_is_told_in_escapes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    answer({"directory": "log-\udcff", "share": np.float64(0.5)})
    line = capfdbinary.readouterr().out
    assert line.isascii()
    assert json.loads(line) == {"directory": "log-\udcff", "share": 0.5}
