"""Latency tables of others: read strictly, in milliseconds whatever their unit, and never as pickles."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from dynarch.hardware.formats import (
    FORMATS,
    AbstractFormat,
    FBNetLines,
    ForeignTable,
    NnMeterCsv,
    NnMeterJson,
    ProxylessYaml,
    format_of,
)
from dynarch.hardware.formats.reading import shown
from dynarch.spaces.errors import DataError, UnknownNameError

CONV = "expanded_conv-input:56x56x24-output:56x56x24-expand:96-kernel:3-stride:1-idskip:1"
YAML = f"""\
# made up
{CONV}: {{count: 20, mean: 0.5, std: 0.1}}
Conv-input:224x224x3-output:112x112x16: {{count: 10, mean: 1.5e-1,
  var: 0.0004}}
Logits-input:7x7x32-output:10:
  count: 5
  mean: 2
  std: 0.25
"""

OPERATOR: dict[str, object] = {
    "op_type": "Conv",
    "op_args": ["name: 'kernel'  i: 3"],
    "input_shapes": [[1, 8, 14, 14], [16, 8, 3, 3]],
    "input_dtypes": [1, 1],
    "runtime_us_p0": 1900.0,
    "runtime_us_p10": 1990.0,
    "runtime_us_p50": 2000,
    "runtime_us_p90": 2246.31,
    "runtime_us_p100": 9000.0,
    "device": "phone",
}
RELU = {**OPERATOR, "op_type": "Relu", "op_args": [], "input_shapes": [[]], "input_dtypes": [1]}

KERNEL: dict[str, object] = {"config": {"HW": 14, "CIN": 8}, "latency": "0.5 +- 0.125"}
BUILDER: dict[str, dict[str, object]] = {
    "conv-bn-relu": {"id_0": {**KERNEL, "model": "m", "shapes": [[14, 14, 8]]}, "id_1": KERNEL},
    "fc": {"id_0": {"config": {"CIN": 8, "COUT": 2.5}, "latency": "2e-3+-0"}},
}

CSV = """\
model_path,HW,CIN,CIN,latency
a.onnx,14,8,8,0.25
b.onnx,28,16,16,1
"""


def lines(*operators: dict[str, object]) -> str:
    return "".join(json.dumps(operator) + "\n" for operator in operators)


def read(folder: Path, name: str, text: str | bytes) -> ForeignTable:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return format_of(path).read(path)


def test_proxyless_and_once_for_all(tmp_path: Path) -> None:
    found = read(tmp_path, "note10.yaml", YAML)
    assert (found.device_name, found.unit, len(found.entries)) == ("note10", "ms", 3)
    conv, first, logits = found.entries.values()
    assert (conv.ms, conv.spread_ms, conv.count) == (0.5, 0.1, 20)
    assert dict(conv.attributes) == {
        "op": "expanded_conv",
        **{"input": "56x56x24", "output": "56x56x24", "expand": 96, "kernel": 3, "stride": 1, "idskip": 1},
    }
    # A variance of 0.0004 ms squared is a standard deviation of 0.02 ms.
    assert (first.ms, first.count) == (0.15, 10)
    assert first.spread_ms == pytest.approx(0.02)
    assert (logits.ms, logits.spread_ms, logits.count) == (2.0, 0.25, 5)


def test_fbnet_lines_are_in_microseconds(tmp_path: Path) -> None:
    found = read(tmp_path, "lut.json", lines(OPERATOR, RELU))
    assert (found.device_name, found.unit) == ("phone", "us")
    name = "Conv 1x8x14x14 16x8x3x3 dtypes [1, 1] name: 'kernel' i: 3"
    assert [*found.entries] == [name, "Relu  dtypes [1]"]
    entry = found.entries[name]
    assert entry.ms == 2.0
    # p90 - p10 = 256.31 us, and of a normal distribution that is 2.5631 standard deviations.
    assert entry.spread_ms == pytest.approx(0.1)
    assert entry.count is None
    assert entry.attributes["input_shapes"] == ((1, 8, 14, 14), (16, 8, 3, 3))


def test_nn_meter_builder_json(tmp_path: Path) -> None:
    found = read(tmp_path, "cpu.json", json.dumps(BUILDER, indent=1))
    assert (found.device_name, found.unit) == ("cpu", "ms")
    assert [*found.entries] == ["conv-bn-relu/id_0", "conv-bn-relu/id_1", "fc/id_0"]
    entry = found.entries["conv-bn-relu/id_0"]
    assert (entry.ms, entry.spread_ms, entry.count) == (0.5, 0.125, None)
    assert dict(entry.attributes) == {"op": "conv-bn-relu", "HW": 14, "CIN": 8}
    assert (found.entries["fc/id_0"].ms, found.entries["fc/id_0"].spread_ms) == (0.002, 0.0)


def test_nn_meter_csv(tmp_path: Path) -> None:
    found = read(tmp_path, "add.csv", "\ufeff" + CSV.replace("\n", "\r\n"))  # as spreadsheets write it
    assert {name: entry.ms for name, entry in found.entries.items()} == {"a.onnx": 0.25, "b.onnx": 1.0}
    assert dict(found.entries["a.onnx"].attributes) == {"HW": 14, "CIN": 8}
    nameless = read(tmp_path, "fc.csv", "CIN,COUT,latency\n8,2.5,0.5\n")
    assert [*nameless.entries] == ["CIN=8 COUT=2.5"]


def test_a_format_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "table.dat"
    path.write_text(CSV)
    assert format_of(path, "nn-meter-csv").read(path).entries.keys() == {"a.onnx", "b.onnx"}
    with pytest.raises(UnknownNameError, match="did you mean 'nn-meter-csv'"):
        format_of(path, "nn-meter-cvs")
    with pytest.raises(DataError, match=r"looks like none of dynarch .*; name one, or rename"):
        format_of(path)


def test_formats_have_names_of_their_own() -> None:
    assert len({member.name for member in FORMATS}) == len(FORMATS) == 5
    assert [type(member) for member in FORMATS[1:]] == [FBNetLines, NnMeterJson, NnMeterCsv, ProxylessYaml]


class _Trap:
    """Writes a file when its pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["table.pkl", "table.json"])
@pytest.mark.parametrize("member", FORMATS, ids=lambda member: member.name)
def test_a_pickle_is_refused_and_not_loaded(tmp_path: Path, member: AbstractFormat, name: str, protocol: int) -> None:
    path, sprung = tmp_path / name, tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"conv": _Trap(sprung)}, protocol))
    with pytest.raises(DataError, match=r"pickles are never loaded, .* runs whatever code its author put there"):
        member.read(path)
    assert not sprung.exists()


def operator(**changes: object) -> str:
    return lines(RELU, {**OPERATOR, **changes})


def without(name: str) -> str:
    return lines(RELU, {key: value for key, value in OPERATOR.items() if key != name})


def builder(model: object) -> str:
    return json.dumps({"conv": {"id_0": model}})


# File name, contents, and what the message must say: the place first.
MALFORMED: tuple[tuple[str, str | bytes, str], ...] = (
    ("t.yaml", "", ": must hold a latency table, but is empty"),
    ("t.yaml", "# nothing\n", ": must hold entries, but has none"),
    ("t.yaml", b"a: {count: 1, mean: 1.0, std: 0}\n\xff", ":2: must be UTF-8"),
    ("t.yaml", "a-b:1: {count: 1, mean: 1.0, std", ":1: an entry must end in '}'"),
    ("t.yaml", "a: {count: 1, mean: 1.0,\nb: {count: 1, mean: 1.0, std: 1}", ":1: an entry must end in '}'"),
    ("t.yaml", "a: {count: 1, mean: 1.0, std: 0} b", ":1: nothing may follow"),
    ("t.yaml", "a: !!python/object {count: 1, mean: 1.0, std: 0}", ":1: must be one of count"),
    ("t.yaml", "a: &x {count: 1, mean: 1.0, std: 0}\nb: *x\n", ":1: must be one of count"),
    ("t.yaml", "- a\n", ":1: must be 'NAME: {count"),
    ("t.yaml", "? a\n: 1\n", ":1: must be 'NAME: {count"),
    ("t.yaml", "  count: 1\n", ":1: must begin with the name"),
    ("t.yaml", "a:\n\tcount: 1\n", ":2: must be indented with spaces"),
    ("t.yaml", "a: {count: 1, mean: 1.0, std: 0, mode: 1}", ":1: must be one of count, mean"),
    ("t.yaml", "a: {count: 1, mean: 1.0, std: 0, std: 0}", ":1: field 'std' stands twice"),
    ("t.yaml", "a: {count: 1, mean: 1.0}", ":1: an entry must have one of 'std' and 'var'"),
    ("t.yaml", "a: {count: 1, mean: 1.0, std: 0, var: 0}", ":1: an entry must have one of"),
    ("t.yaml", "a: {mean: 1.0, std: 0}", ":1: field 'count' is missing"),
    ("t.yaml", "a:\n  count: 1\n  mean: .nan\n  std: 0", ":3: field 'mean' must be a finite number"),
    ("t.yaml", "a: {count: 1, mean: .inf, std: 0}", ":1: field 'mean' must be a finite number"),
    ("t.yaml", "a: {count: 1, mean: 1e999, std: 0}", ":1: field 'mean' must be a finite number"),
    ("t.yaml", "a: {count: 1, mean: -1.0, std: 0}", ":1: field 'mean' must be a finite number of at least 0"),
    ("t.yaml", "a: {count: 1, mean: 0.0, std: 0}", ":1: field 'mean' must be above 0"),
    ("t.yaml", "a: {count: 0, mean: 1.0, std: 0}", ":1: field 'count' must be a whole number of at least 1"),
    ("t.yaml", "a: {count: 1.5, mean: 1.0, std: 0}", ":1: field 'count' must be a whole number"),
    ("t.yaml", f"a: {{count: {'9' * 5000}, mean: 1.0, std: 0}}", ":1: field 'count' must be a finite number"),
    ("t.yaml", "a: {count: 1, mean: fast, std: 0}", ":1: field 'mean' must be a finite number"),
    ("t.yaml", "a-kernel: {count: 1, mean: 1.0, std: 0}", ":1: a name must be OP-KEY:VALUE"),
    ("t.yaml", "a-k:1-k:2: {count: 1, mean: 1.0, std: 0}", ":1: a name must be OP-KEY:VALUE"),
    ("t.yaml", YAML + YAML, ":10: entries must be unique"),
    ("t.jsonl", lines(OPERATOR)[:-20], ":1: must be JSON, but column"),
    ("t.jsonl", lines(RELU, OPERATOR, OPERATOR), ":3: entries must be unique"),
    ("t.jsonl", operator(device="other"), ":2: all lines must be of one device"),
    ("t.jsonl", operator(runtime_us_p50=0), ":2: field 'runtime_us_p50' must be a number above 0, but is 0"),
    ("t.jsonl", operator(runtime_us_p50=-2000), ":2: field 'runtime_us_p50' must be a number above 0"),
    ("t.jsonl", operator(runtime_us_p50=float("nan")), ":2: numbers must be finite, but got NaN"),
    ("t.jsonl", operator(runtime_us_p100=float("inf")), ":2: numbers must be finite, but got Infinity"),
    ("t.jsonl", operator(runtime_us_p50="2000"), ":2: field 'runtime_us_p50' must be a number"),
    (
        "t.jsonl",
        operator(runtime_us_p50=10**400),
        ":2: field 'runtime_us_p50' must be a number above 0, but is a number of",
    ),
    ("t.jsonl", operator(runtime_us_p90=1000.0), ":2: the quantiles must not fall"),
    (
        "t.jsonl",
        operator(input_shapes=[[0, 8, 14, 14]]),
        ":2: field 'input_shapes' must be a list of shapes with sizes",
    ),
    ("t.jsonl", operator(input_dtypes=[1]), ":2: there must be a dtype for each shape"),
    ("t.jsonl", operator(op_args="kernel: 3"), ":2: field 'op_args' must be a list of texts"),
    ("t.jsonl", operator(op_type=""), ":2: field 'op_type' must be text that is not empty"),
    ("t.jsonl", operator(runtime_ms_p50=2.0), ":2: unknown field 'runtime_ms_p50'"),
    ("t.jsonl", without("runtime_us_p0"), ":2: field 'runtime_us_p0' is missing"),
    ("t.jsonl", lines(OPERATOR) + "[]\n", ":2: must be a JSON object, but is []"),
    ("t.json", "{", ":1: must be JSON, but column"),
    ("t.json", '{\n"conv": {\n"id_0": nope}}', ":3: must be JSON, but column"),
    ("t.json", "{}", ": must hold entries, but has none"),
    ("t.json", '{"conv": []}', ": conv: must map ids to models, but is []"),
    ("t.json", '{"conv": {"a": {}, "a": {}}}', ": names in an object must be unique, but 'a' stands twice"),
    ("t.json", '{"a":' * 100_000, ": must be plain JSON, but nests too deeply"),
    ("t.json", '{"a": ' + "9" * 5000 + "}", ": must be plain JSON, but nests too deeply or has a number of thousands"),
    ("t.json", '{"a": "\\ud800"}', ": texts must be storable"),
    ("t.json", builder({**KERNEL, "latency": 0.5}), ": conv.id_0: field 'latency' must be text"),
    ("t.json", builder({**KERNEL, "latency": "0.5"}), ": conv.id_0: field 'latency' must be 'MEAN +- DEVIATION' in ms"),
    ("t.json", builder({**KERNEL, "latency": "0.0 +- 0.0"}), ": conv.id_0: field 'latency' must be finite and above 0"),
    ("t.json", builder({**KERNEL, "latency": "-1 +- 0.0"}), ": conv.id_0: field 'latency' must be finite and above 0"),
    ("t.json", builder({**KERNEL, "latency": "nan +- 0.0"}), ": conv.id_0: field 'latency' must be 'MEAN"),
    ("t.json", builder({**KERNEL, "latency": "1e999 +- 0.0"}), ": conv.id_0: field 'latency' must be finite"),
    ("t.json", builder({**KERNEL, "config": {"HW": "14"}}), ": conv.id_0: feature 'HW' must be a number"),
    ("t.json", builder({**KERNEL, "power": 3}), ": conv.id_0: unknown field 'power'"),
    ("t.json", builder({"latency": "1 +- 0"}), ": conv.id_0: field 'config' is missing"),
    ("t.csv", "HW,latency\n", ": must hold rows, but has none"),
    ("t.csv", "latency\n1\n", ":1: the header must name features"),
    ("t.csv", "HW,latency,latency\n1,1,1\n", ":1: the header must name features and, once, 'latency'"),
    ("t.csv", "HW,latency\n14,0.5\n28\n", ":3: a row must have 2 cells as the header has, but has 1"),
    ("t.csv", 'HW,latency\n14,"0.5\n', ":2: must be CSV"),
    ("t.csv", "HW,latency\n14,0\n", ":2: latency must be above 0"),
    ("t.csv", "HW,latency\n14,-0.5\n", ":2: latency must be above 0"),
    ("t.csv", "HW,latency\n14,nan\n", ":2: 'latency' must be a finite number"),
    ("t.csv", "HW,latency\n14,1e999\n", ":2: 'latency' must be a finite number"),
    ("t.csv", "HW,latency\nbig,0.5\n", ":2: 'HW' must be a finite number"),
    ("t.csv", "HW,latency\n14,0.5\n14,0.6\n", ":3: rows must be unique"),
    ("t.csv", "HW,CIN,CIN,latency\n14,8,9,0.5\n", ":2: columns called 'CIN' must agree"),
    ("t.gz.csv", b"\x1f\x8b\x08\x00", ": must be plain text, but is a compressed file"),
)


@pytest.mark.parametrize(("name", "text", "message"), MALFORMED, ids=[row[2] for row in MALFORMED])
def test_a_malformed_table_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, text)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / name}{message}"), said
    assert "\n" not in said
    assert "; " in said, "names no remedy"
    assert len(said) < 500 + len(str(tmp_path))


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "but is a directory"), (tmp_path / "absent.csv", "but does not exist")):
        with pytest.raises(DataError, match=reason):
            format_of(path)
    with pytest.raises(DataError, match="no regular file"):
        format_of(Path("/dev/null"))


def test_wrong_values_are_shown_short() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert shown(10**4000) == "a number of 13288 bits"
    assert len(shown(list(range(1000)))) == 60
