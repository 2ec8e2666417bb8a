"""Names of formats: a string to a `Format` and back, one canonical spelling each.

name   = base, then at most one of _g<N> _b<N> _channel _token _tensor, then _s<scale>, then _asym
base   = int<2..16> | uint<2..16> | fp32 | fp16 | bf16 | minifloat
       | flint<3..8> | uflint<2..8> | pot<3..6>
       | mx<element> | nv<element>       blocks: E8M0 scale, 32 | E4M3 scale, 16, and an FP32 tensor scale
       | bfp<M> | msfp<11..16>           blocks: shared exponent, sign and M mantissa bits
       | bitmod_fp3 | bitmod_fp4         groups of 128: INT8 scale and a selector, and an FP16 row scale
       | ternary | binary                scale: the mean magnitude
       | qserve_uint4                    groups of 128: UINT8 scale and a zero point, and an FP16 row scale
       | bitflip<N> | bbs_avg<N> | bbs_zp<N>      INT8 of rows without N bit columns in each group of 32
minifloat = fp8_e4m3 fp8_e5m2 fp6_e2m3 fp6_e3m2 fp4_e2m1 | e<X>m<Y> | e<X>m<Y>ieee
scale  = fp16 | i<2..12> | u<2..12>      integers: one a group, under an FP16 scale a row
       | m1 | m2                         powers of two: alone, or under an FP16 scale a row
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from simulator.errors import InputError, nearest, shorten
from simulator.formats import pruning, qserve
from simulator.formats.binarized import absmean
from simulator.formats.element import (
    BF16,
    E8,
    E8M0,
    FP4_E2M1,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    NAMED_FLOATS,
    Element,
    integer,
    minifloat,
    sign_magnitude,
)
from simulator.formats.entry_points import ThirdParty, load_entry_points
from simulator.formats.format import Format, Granularity
from simulator.formats.tables import (
    BINARY,
    BITMOD_MAGNITUDES,
    FLINT_BITS,
    POT_BITS,
    bitmod,
    flint,
    power_of_two,
)

MX_BLOCK = 32
NV_BLOCK = 16
MSFP_BLOCK = 16
BITMOD_GROUP = 128
QSERVE_GROUP = 128
BITMOD_SCALES = (1e-5, 1e4)
"""Limits of a scale in BitMoD's released quantizer."""
LARGEST_GROUP = 2**20

UNSCALED = (FP32, FP16, BF16)
"""Data types of their own: values are cast to them, without a scale."""

ALIASES = {
    "fp4": "fp4_e2m1",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float8_e4m3fn": "fp8_e4m3",
    "float8_e5m2": "fp8_e5m2",
    "mxfp4_e2m1": "mxfp4",
    "nvfp4_e2m1": "nvfp4",
}

_SUFFIXES = re.compile(
    r"(?P<base>.*?)(?:_(?:(?P<kind>[gb])(?P<size>[0-9]+)|(?P<whole>channel|token|tensor)))?"
    r"(?:_s(?P<scale>fp16|m1|m2|[iu][0-9]{1,2}))?(?P<asym>_asym)?"
)
_INTEGER = re.compile(r"(?P<unsigned>u?)int(?P<bits>[0-9]{1,2})")
_MINIFLOAT = re.compile(
    r"(?:fp(?P<total>[0-9]{1,2})_)?e(?P<exponent>[0-9]{1,2})m(?P<mantissa>[0-9]{1,2})(?P<ieee>ieee)?"
)
_INTEGER_SCALE = re.compile(r"(?P<kind>[iu])(?P<bits>[2-9]|1[0-2])")
_ANT = re.compile(r"(?P<kind>u?flint|pot)(?P<bits>[2-8])")
_PRUNED = re.compile(r"(?P<method>bitflip|bbs_avg|bbs_zp)(?P<columns>[1-6])")
_BFP = re.compile(r"(?P<kind>bfp|msfp)(?P<bits>[0-9]{1,2})")

_WHOLE: dict[str, Granularity] = {"channel": "channel", "token": "token", "tensor": "tensor"}
_NAMED = {element.name: element for element in NAMED_FLOATS}
_LAYOUTS = {replace(element, name=""): element for element in NAMED_FLOATS}


def format_names() -> list[str]:
    """Canonical names to choose from, third-party ones included; suffixes and minifloats make many more."""
    integers = [f"{kind}{bits}" for kind in ("int", "uint") for bits in range(2, 17)]
    floats = [*_NAMED, "e3m4", "e3m4ieee"]
    mx = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8", "mxint6", "mxint4"]
    blocks = [*mx, "nvfp4", "nvint4", *(f"msfp{bits}" for bits in range(11, 17)), "bfp7_b64"]
    suffixed = [
        "int8_asym",
        "int8_channel",
        "int8_token",
        "int4_channel",
        "int4_g128",
        "int4_g128_asym",
        "fp4_e2m1_g32",
    ]
    tables = ["bitmod_fp4_g128", "bitmod_fp3_g128", "flint4", "uflint4", "pot4"]
    pruned = [
        f"{method}{columns}_g32" for method in ("bitflip", "bbs_avg", "bbs_zp") for columns in (2, 3, 4)
    ]
    own = ["ternary", "binary", "qserve_uint4_g128", *pruned]
    two_levels = ["int6_g128_si8", "int8_g128_si8", "int4_g16_su4", "int4_g16_su6"]
    powers = ["fp4_e2m1_g128_sm1", "fp4_e2m1_g128_sm2"]
    return [
        *integers,
        *floats,
        *blocks,
        *suffixed,
        *tables,
        *two_levels,
        *powers,
        *own,
        *sorted(_third_party()),
    ]


def get_format(name: str | Format) -> Format:
    """The format of this name, in any case or spelling; a Format is returned as it is. InputError
    otherwise."""
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise InputError("a format is named by a string", value=name, allowed="such as int4_g128 or mxfp4")
    return _parse(name)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Format:
    spelled = text.strip().lower().replace("-", "_")
    parts = _SUFFIXES.fullmatch(spelled)
    if parts is None:
        raise _unknown(text)
    base = ALIASES.get(parts["base"], parts["base"])
    granularity: Granularity | None = None
    size = 0
    if parts["kind"]:
        granularity = "group" if parts["kind"] == "g" else "block"
        size = int(parts["size"][:9])
        if not 1 <= size <= LARGEST_GROUP:
            raise InputError(
                f"group size of format {shorten(text)}", value=size, allowed=f"1 to {LARGEST_GROUP}"
            )
    elif parts["whole"]:
        granularity = _WHOLE[parts["whole"]]
    bare = _base_format(base)
    if bare is not None and bare.quantizer is not None:
        return _with_group(bare, base, granularity, size, other=parts["scale"] or parts["asym"])
    if bare is None:
        third_party = _third_party()
        if spelled in third_party:
            return third_party[spelled]
        bare = third_party.get(base)
        if bare is None or bare.quantizer is not None or bare.granularity != "tensor":
            raise _unknown(text)
    return _with_suffixes(bare, granularity, size, parts["scale"], asymmetric=parts["asym"] is not None)


def _base_format(base: str) -> Format | None:
    """The format that a base names by itself; None where it names none."""
    element = _element(base)
    if element is not None:
        if element in UNSCALED:
            return Format(element.name, element)
        return Format(element.name, element, "tensor", scale_element=FP16)
    if base.startswith("bitmod_fp") and base[9:] in map(str, BITMOD_MAGNITUDES):
        element = bitmod(int(base[9:]))
        chosen = Format(
            base, element, "group", BITMOD_GROUP, FP16, selector_bits=2, scale_limits=BITMOD_SCALES
        )
        return _with_scale(chosen, "i8")
    if base in ("ternary", "binary"):
        element = BINARY if base == "binary" else integer(2)
        return Format(base, element, "tensor", scale_element=FP16, quantizer=absmean)
    if base == "qserve_uint4":
        return qserve.format_of(QSERVE_GROUP)
    pruned = _PRUNED.fullmatch(base)
    if pruned:
        return pruning.format_of(pruned["method"], int(pruned["columns"]))  # type: ignore[arg-type]
    shared = _BFP.fullmatch(base)
    if shared:
        given = int(shared["bits"])
        mantissa = given if shared["kind"] == "bfp" else given - 9
        allowed = range(1, 16) if shared["kind"] == "bfp" else range(2, 8)
        if mantissa not in allowed:
            return None
        return Format(base, sign_magnitude(mantissa), "block", MSFP_BLOCK, scale_element=E8)
    for prefix, size in (("mx", MX_BLOCK), ("nv", NV_BLOCK)):
        rest = base.removeprefix(prefix)
        element = _element(ALIASES.get(rest, rest)) if rest != base else None
        if (
            element is None
            or element.kind in ("uint", "table")
            or element.bits > 8
            or (element.specials == "ieee" and element != FP8_E5M2)
        ):
            continue
        short = {FP4_E2M1: "fp4"}.get(element, element.name)
        if prefix == "nv":
            return Format(f"nv{short}", element, "block", size, FP8_E4M3, FP32)
        if element.kind == "int":
            element = replace(element, step_exponent=2 - element.bits)
        return Format(f"mx{short}", element, "block", size, E8M0)
    return None


def _element(name: str) -> Element | None:
    """The integer or minifloat that `name` spells; None where it spells none."""
    if name in _NAMED:
        return _NAMED[name]
    whole = _INTEGER.fullmatch(name)
    if whole and 2 <= int(whole["bits"]) <= 16 and whole["bits"][0] != "0":
        return integer(int(whole["bits"]), signed=not whole["unsigned"])
    ant = _ANT.fullmatch(name)
    if ant:
        return _ant_element(ant["kind"], int(ant["bits"]))
    layout = _MINIFLOAT.fullmatch(name)
    if layout is None:
        return None
    exponent, mantissa = int(layout["exponent"]), int(layout["mantissa"])
    total = 1 + exponent + mantissa
    ieee = layout["ieee"] is not None
    if not (1 <= exponent <= 8 and 3 <= total <= 16) or (ieee and (exponent < 2 or mantissa < 1)):
        return None
    if layout["total"] and int(layout["total"]) != total:
        return None
    element = minifloat(exponent, mantissa, "ieee" if ieee else "none")
    return _LAYOUTS.get(replace(element, name=""), element)


def _ant_element(kind: str, bits: int) -> Element | None:
    if kind == "pot":
        return power_of_two(bits) if bits in POT_BITS else None
    signed = kind == "flint"
    return flint(bits, signed=signed) if bits in FLINT_BITS and bits >= 2 + signed else None


def _with_suffixes(
    bare: Format, granularity: Granularity | None, size: int, scale: str | None, *, asymmetric: bool
) -> Format:
    """`bare` with the suffixes applied, under its canonical name."""
    blocks = bare.granularity == "block"
    plain = "a plain integer or float takes _g<N>, _channel, _token or _tensor"
    if blocks and (granularity not in (None, "block") or scale or asymmetric):
        raise InputError(
            f"{bare.name} shares a scale per block", allowed="_b<N> after it, and no other suffix"
        )
    if granularity == "block" and not blocks:
        raise InputError(
            f"{bare.name} is no block format", allowed=f"{plain}; blocks are mx..., nv..., bfp..., msfp..."
        )
    if bare.scale_element is None and (granularity or scale or asymmetric):
        raise InputError(f"{bare.name} is cast to, without a scale", allowed=f"{bare.name} without a suffix")
    if asymmetric and not bare.is_integer:
        raise InputError(f"{bare.name} has no integer zero point", allowed="_asym after an integer format")
    if bare.selector_bits and granularity == "tensor":
        raise InputError(f"{bare.name} chooses a table for each group", allowed="_g<N>, _channel or _token")
    if blocks and not size and bare.name.startswith("bfp"):
        raise InputError(
            f"{bare.name} needs a block size", allowed=f"{bare.name}_b<N>, such as {bare.name}_b64"
        )
    if blocks:
        return _block_format(bare, size or bare.group_size)
    if bare.scale_element is None:
        return bare
    granularity = granularity or bare.granularity
    size = size or (bare.group_size if granularity == "group" else 0)
    alone = FP16 if bare.row_scale_element is not None else bare.scale_element
    usual = "i8" if bare.row_scale_element is not None and size else "fp16" if alone == FP16 else None
    scale = scale or usual
    if asymmetric and scale in ("m1", "m2"):
        raise InputError(f"scales _s{scale} are for symmetric formats", key=bare.name)
    suffixes = (
        {"group": f"_g{size}", "tensor": ""}.get(granularity, f"_{granularity}"),
        "" if scale == usual else f"_s{scale}",
        "_asym" if asymmetric else "",
    )
    name = bare.name + "".join(suffixes)
    grouped = replace(
        bare,
        name=name,
        granularity=granularity,
        group_size=size,
        scale_element=alone,
        row_scale_element=None,
        has_zero_point=asymmetric,
    )
    return grouped if scale is None else _with_scale(grouped, scale)


def _with_scale(grouped: Format, scale: str) -> Format:
    """A format of one level of scales, with those that the suffix _s<scale> names instead."""
    if scale == "fp16":
        return replace(grouped, scale_element=FP16)
    if scale == "m1":
        return replace(grouped, scale_element=E8, scale_rule="ceil")
    whole = _INTEGER_SCALE.fullmatch(scale)
    if scale != "m2" and whole is None:
        raise InputError(
            f"scale of format {grouped.name}",
            value=scale,
            allowed="_sfp16, _si<2..12>, _su<2..12>, _sm1, _sm2",
        )
    if not grouped.group_size:
        raise InputError(f"{grouped.name} has no groups below its rows' scales", allowed="_g<N> before it")
    level = integer(int(whole["bits"]), signed=whole["kind"] == "i") if whole else E8
    return replace(grouped, scale_element=level, row_scale_element=FP16)


def _with_group(
    bare: Format, base: str, granularity: Granularity | None, size: int, *, other: str | None
) -> Format:
    """A format whose quantizer is its own, with the one suffix that it may have."""
    if base in ("ternary", "binary") and granularity != "block" and not other:
        return _with_suffixes(bare, granularity, size, None, asymmetric=False)
    if granularity not in (None, "group") or other:
        raise InputError(
            f"{base} has scales of its own", allowed=f"{base}_g<N>, _channel where it has no groups"
        )
    if base == "qserve_uint4":
        return qserve.format_of(size or QSERVE_GROUP)
    return replace(bare, name=f"{base}_g{size}", selector_group=size) if size else bare


def _block_format(bare: Format, size: int) -> Format:
    """A block format with its block size in its name where that is not the one its base implies."""
    if bare.element.kind == "sign_magnitude":
        mantissa = bare.element.bits - 1
        is_msfp = size == MSFP_BLOCK and 2 <= mantissa <= 7
        name = f"msfp{mantissa + 9}" if is_msfp else f"bfp{mantissa}_b{size}"
    else:
        name = bare.name if size == bare.group_size else f"{bare.name}_b{size}"
    return replace(bare, name=name, group_size=size)


def origin(format_: Format) -> str | None:
    """The entry point that brought a format of another package; None for our own."""
    return _entry_points().origins.get(format_.name)


def _third_party() -> dict[str, Format]:
    """Formats of other packages by name."""
    return _entry_points().formats


@lru_cache(maxsize=1)
def _entry_points() -> ThirdParty:
    return load_entry_points(_spells_built_in, _built_in)


def _built_in(element: Element) -> Element | None:
    """Our element of the same name; None where there is none."""
    ours = _element(element.name)
    if ours is not None:
        return ours
    bare = _base_format(element.name)
    return None if bare is None else bare.element


def _spells_built_in(name: str) -> bool:
    parts = _SUFFIXES.fullmatch(name)
    return parts is not None and _base_format(ALIASES.get(parts["base"], parts["base"])) is not None


def _unknown(text: str) -> InputError:
    return InputError(
        "no number format of this name", value=text, allowed=nearest(text[:40].lower(), format_names())
    )
