"""The reader of workload files: whatever a file holds, it is a workload or one clear error."""

import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.config import MAX_FILE_BYTES, dump_yaml, parse_mapping, parse_value
from simulator.errors import InputError
from simulator.shipped import shipped_folder
from simulator.workload import Workload, load_workload, workload_names
from simulator.workload.rows import OPERATIONS, PAIRED

SHIPPED = {path.stem: path.read_text() for path in sorted(shipped_folder("workloads").glob("*.yaml"))}
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(file: Path, content: bytes | str) -> Workload | InputError:
    """What loading ``content`` gives; any other exception fails the test."""
    file.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    try:
        return load_workload(file)
    except InputError as error:
        return error


def error(tmp_path, text) -> str:
    result = outcome(tmp_path / "net.yaml", text)
    assert isinstance(result, InputError), result
    assert str(tmp_path / "net.yaml") in str(result)
    return str(result)


def test_the_shipped_workloads_load_by_name():
    decoders = ["llama-2-13b", "llama-2-7b", "llama-3-8b", "opt-1.3b", "opt-6.7b", "phi-2", "yi-6b"]
    others = ["bert-base", "minilm-l6", "mobilenet-v1", "resnet-18"]
    assert workload_names() == sorted(decoders + others)
    for name in workload_names():
        work = load_workload(name)
        assert work.name == name
        assert work.source != "the user's own"


def test_a_name_that_is_not_shipped_offers_the_nearest():
    with pytest.raises(InputError, match="did you mean llama-2-7b"):
        load_workload("lama-2-7b")


HEAD = "name: net\nmodel: {family: llama, hidden: 64, layers: 1, heads: 2, intermediate: 8, vocab: 9}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing"),
        ("- a\n- b\n", "holds list"),
        ("name: [1, 2\n", "is not YAML"),
        (HEAD + "name: again\n", "name: this key stands here twice"),
        (HEAD + "phase: {batch: 1, batch: 2}\n", r"phase.batch: this key stands here twice"),
        (HEAD + "1: 2\n", "keys must be text"),
        (HEAD + "[a, b]: 2\n", "keys must be text"),
        (HEAD + "source: !!python/object/apply:os.system [ls]\n", "tags are not allowed"),
        (HEAD + "source: !!binary aGVsbG8=\n", "only text"),
        (HEAD + "source: 2020-01-01\n", "only text"),
        (HEAD + "<<: {a: 1}\n", "only text"),
        (HEAD + "source: *nothing\n", "is not YAML|alias of nothing"),
        (HEAD + "source: &a [*a]\n", "source"),
        (HEAD + "---\nname: b\n", "more than one document"),
        (HEAD + "sorce: x\n", "sorce: no key of this name; allowed: did you mean source"),
        (
            HEAD + "formats: {wieghts: int8}\n",
            "formats.wieghts: no key of this name; allowed: did you mean weights",
        ),
        (HEAD + "formats: {weights: int99}\n", "formats.weights: "),
        (HEAD + "values: {weights: {distribution: gauss}}\n", "values.weights.distribution: .*normal"),
        (HEAD + "values: {weights: {package: ../x}}\n", "values.weights.package"),
        (
            HEAD + "values: {weights: {safetensors: a, package: b}}\n",
            r"values\.weights\.safetensors: cannot stand beside package \(found 'a'\); .*not both",
        ),
        (HEAD + "values: {weights: {seed: -1}}\n", "values.weights.seed"),
        (
            HEAD + "phase: {prefill: 1, decode: 1}\n",
            r"phase\.decode: cannot stand beside prefill \(found 1\); .*not both",
        ),
        (HEAD + "operations: [{op: relu, name: a, shape: [1, 1]}]\n", "either model or operations"),
        ("name: net\n", "either model or operations"),
        ("name: net\noperations: []\n", "operations: .*at least 1"),
        ("name: net\nmodel: {}\n", "model.family"),
        ("model: {family: llama}\n", "name: this key is missing"),
        ("name: net\nmodel: {family: llama}\n", "model.layers: this key is missing"),
        (HEAD.replace("64", "-64"), "model.hidden: .*found -64"),
        (HEAD.replace("64", "0x1" + "0" * 400), "model.hidden: the number is too large"),
        (HEAD.replace("64", "4611686018427387904"), "model.hidden: "),
        (HEAD.replace("64", "1e3"), r"model\.hidden: .*\(found 1000\.0\); allowed: digits only, 1000"),
        (HEAD.replace("64", "0100"), r"model\.hidden: .* leading 0 .*\(found '0100'\); allowed: 100, or"),
        (
            HEAD.replace("64", "1:30"),
            r"model\.hidden: .* with ':' .*\(found '1:30'\); allowed: '1:30' in quotes",
        ),
        (
            HEAD.replace("heads: 2", "heads: 3"),
            r"model\.heads: must divide hidden .*\(found 3\); allowed: .* 64",
        ),
        (HEAD.replace("64", ""), r"model\.hidden: input should be a valid integer \(found nothing\)"),
        (HEAD.replace("64", "yes"), "model.hidden: "),
    ],
)
def test_a_faulty_file_is_one_error_with_file_and_key(tmp_path, text, message):
    assert re.search(message, error(tmp_path, text))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_truncated_file_is_a_workload_or_an_error(tmp_path, name):
    text = SHIPPED[name]
    for end in range(0, len(text), max(1, len(text) // 40)):
        outcome(tmp_path / "net.yaml", text[:end])


def test_a_folder_a_missing_file_and_binary_are_errors(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match="folder"):
        load_workload(tmp_path / "folder.yaml")
    with pytest.raises(InputError, match="no such workload file"):
        load_workload(tmp_path / "none.yaml")
    assert "UTF-8" in error(tmp_path, b"\xff\xfe\x00\x80" * 9)


def test_a_file_that_never_ends_is_refused(tmp_path):
    assert "too large" in error(tmp_path, b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(InputError, match="is not a file"):
        load_workload("/dev/zero")


def test_aliases_that_multiply_are_refused_before_they_grow(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "too many values" in error(tmp_path, "name: bomb\n" + "\n".join(lines))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
@pytest.mark.parametrize("depth", [40, 2000, 200_000])
def test_nesting_without_end_is_refused(tmp_path, opening, depth):
    error(tmp_path, "name: deep\nmodel: " + opening * depth)


def test_an_alias_repeats_what_it_names(tmp_path):
    data = parse_mapping("a: &x {b: [1, 2.5, yes, ~, text]}\nc: *x\n", "here")
    assert data == {"a": {"b": [1, 2.5, True, None, "text"]}, "c": {"b": [1, 2.5, True, None, "text"]}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        ("-2.5E6", -2.5e6),
        (".5e1", 5.0),
        ("5.", 5.0),
        ("0", 0),
        ("-0.5", -0.5),
        ("0x10", 16),
        ("'010'", "010"),
        ("e3m4", "e3m4"),
        ("1.5.2", "1.5.2"),
        ("2e", "2e"),
    ],
)
def test_a_number_is_what_yaml_1_2_says(text, value):
    read = parse_value(text, "key")
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("text", ["010", "-017", "00", "08", "0_7", "1:30", "-1:30", "1:30.5", "[1, 010]"])
def test_numbers_that_yaml_1_1_reads_in_base_8_or_60_are_refused(text):
    with pytest.raises(InputError, match=r"YAML 1\.1"):
        parse_value(text, "key")


@pytest.mark.parametrize("text", ["1e999", "-1e999"])
def test_a_number_beyond_float64_is_not_infinity(text):
    with pytest.raises(InputError, match="key: the number is too large"):
        parse_value(text, "key")


@given(st.from_regex(r"\A[-+]?[0-9.:_]{1,4}([eE][-+]?[0-9]{1,2})?\Z"))
def test_text_that_looks_like_a_number_stays_text_when_written(text):
    assert parse_mapping(dump_yaml({"key": text}), "here") == {"key": text}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(st.dictionaries(st.text(max_size=10), plain, max_size=5))
def test_plain_data_is_read_back_as_the_safe_loader_reads_it(data):
    text = dump_yaml(data)
    assert parse_mapping(text, "here") == yaml.safe_load(text) == data


@FUZZ
@given(st.binary(max_size=400))
def test_any_bytes_are_an_error_or_a_workload(tmp_path, content):
    outcome(tmp_path / "net.yaml", content)


@FUZZ
@given(st.text(alphabet="{}[]&*!|>-:,#'\"%@`\n \tab01.~<?", max_size=200))
def test_any_yaml_punctuation_is_an_error_or_a_workload(tmp_path, text):
    outcome(tmp_path / "net.yaml", "name: a\n" + text)


keys = st.sampled_from(["name", "source", "model", "operations", "formats", "values", "phase", "input"])


@FUZZ
@given(st.dictionaries(keys | st.text(max_size=5), plain, max_size=6))
def test_any_structure_is_an_error_or_a_workload(tmp_path, data):
    outcome(tmp_path / "net.yaml", dump_yaml({"name": "net", **data}))


BASE = {
    "conv": {"out": 4, "kernel": 3, "padding": 1},
    "gemm": {"n": 4},
    "attention": {"heads": 2, "head_dim": 4, "queries": 3, "keys": 3},
    "max_pool": {"kernel": 2},
    "average_pool": {"kernel": "global"},
    **{op: {"with": "input"} for op in PAIRED},
}
row_values = (
    st.integers(-1, 9)
    | st.sampled_from(["a", "b", "new", "input", "relu", "global", "batch", True, None, 2**31, 2**62])
    | st.lists(st.integers(0, 9), max_size=4)
)


@st.composite
def rows(draw):
    """A row that could be right, with up to two of its keys changed."""
    op, name = draw(st.sampled_from(sorted(OPERATIONS))), draw(st.sampled_from(["a", "b", "c", "d"]))
    keys = sorted(field.alias or key for key, field in OPERATIONS[op][0].model_fields.items())
    changes = draw(st.dictionaries(st.sampled_from([*keys, "other"]), row_values, max_size=2))
    return {"op": op, "name": name, **BASE.get(op, {}), **changes}


@FUZZ
@given(st.lists(rows(), min_size=1, max_size=3))
def test_any_list_of_rows_is_an_error_or_a_workload(tmp_path, operations):
    document = {"name": "net", "input": [6, 6, 4], "operations": operations}
    outcome(tmp_path / "net.yaml", dump_yaml(document))


@FUZZ
@given(st.sampled_from(sorted(SHIPPED)), st.integers(0, 2**32 - 1))
def test_a_shipped_file_with_damaged_bytes_is_an_error_or_a_workload(tmp_path, name, seed):
    dice = random.Random(seed)
    content = bytearray(SHIPPED[name].encode())
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(content))
        content[at : at + dice.randint(0, 3)] = bytes(dice.randrange(256) for _ in range(dice.randint(0, 3)))
    outcome(tmp_path / "net.yaml", bytes(content))


@FUZZ
@given(st.sampled_from(["bert-base", "minilm-l6", "resnet-18"]), st.integers(0, 2**32 - 1), plain)
def test_a_shipped_document_with_one_node_replaced_is_an_error_or_a_workload(tmp_path, name, seed, value):
    dice = random.Random(seed)
    document = yaml.safe_load(SHIPPED[name])
    node = document
    while True:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or dice.random() < 0.2:
            break
        node = node[key]
    node[key] = value
    outcome(tmp_path / "net.yaml", dump_yaml(document))
