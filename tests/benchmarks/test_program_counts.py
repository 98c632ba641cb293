"""The counts of a program's text that benchmarks/device_program.py prints."""

import pytest

from benchmarks import program_counts as counts

# As XLA writes them, line by line.
# ruff: noqa: E501
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%fused (p: f32[10,3]) -> f32[10,3] {
  %p = f32[10,3]{1,0} parameter(0)
  ROOT %double = f32[10,3]{1,0} add(%p, %p)
}

%body (state: (s32[], bf16[4,5])) -> (s32[], bf16[4,5]) {
  %state = (s32[], bf16[4,5]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %values = bf16[4,5]{1,0} get-tuple-element(%state), index=1
  %turn = bf16[4,5]{1,0} fusion(%values, %count), kind=kLoop, calls=%turned, metadata={op_name="jit(step)/transpose(jvp(Net))/block1_0/dwconv/add"}
  ROOT %next = (s32[], bf16[4,5]{1,0}) tuple(%count, %turn)
}

%called (a: u8[8]) -> u8[8] {
  %a = u8[8]{0} parameter(0)
  ROOT %copy = u8[8]{0} copy(%a)
}

ENTRY %main (x: f32[10,3], y: bf16[4,5], z: u8[8]) -> (f32[10,3], bf16[4,5]) {
  %x = f32[10,3]{1,0} parameter(0)
  %y = bf16[4,5]{1,0} parameter(1)
  %z = u8[8]{0} parameter(2)
  %fusion = f32[10,3]{1,0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/jvp(Net)/fc1/add"}
  %started = f32[10,3]{1,0} all-reduce-start(%fusion), to_apply=%sum, backend_config={"collective_backend_config":{"is_sync":false}}
  %done = f32[10,3]{1,0} all-reduce-done(%started)
  %waited = f32[10,3]{1,0} all-reduce-start(%done), to_apply=%sum, backend_config={"collective_backend_config":{"is_sync":true}}
  %kept = u8[8]{0} call(%z), to_apply=%called
  %first = (s32[], bf16[4,5]{1,0}) tuple(%x, %y)
  %loop = (s32[], bf16[4,5]{1,0}) while(%first), condition=%until, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %out = bf16[4,5]{1,0} get-tuple-element(%loop), index=1
  ROOT %result = (f32[10,3]{1,0}, bf16[4,5]{1,0}) tuple(%waited, %out)
}
"""


def test_operands_and_results_count_once_for_each_turn_of_a_loop():
    rows = {row.name: row for row in counts.read(PROGRAM)}
    # 4 x 5 values of two bytes, read and written, and a counter.
    assert (rows["turn"].num_bytes, rows["turn"].times) == (7 * (40 + 40 + 4), 7)
    assert (rows["fusion"].num_bytes, rows["fusion"].times) == (240, 1)
    assert rows["copy"].num_bytes == 16
    assert set(rows) == {"turn", "fusion", "copy", "started", "done", "waited"}


def test_totals_tell_exchanges_that_hide_from_those_that_are_waited_for():
    totals = counts.totals(counts.read(PROGRAM))
    assert totals["kernels"] == 7 + 5
    assert totals["exchanges"] == 2 and totals["asynchronous"] == 1
    assert totals["exchanged_gigabytes"] == pytest.approx(480e-9, abs=1e-3)


def test_groups_are_sides_and_parts_of_the_network():
    groups = counts.by_group(counts.read(PROGRAM))
    # Three steps of exchanges of 240 bytes in and out, and the copy.
    assert groups == [
        ("unnamed", 4, 3 * 240 + 16),
        ("backward dwconv", 7, 588),
        ("forward fc1", 1, 240),
    ]


def test_a_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="entry computation"):
        counts.read("HloModule nothing")


# As XLA writes them for TPUs, whose layouts have brackets, and which counts operands.
OF_TPU = """\
ENTRY %main (x: f32[8], y: f32[4,2]) -> (f32[8], f32[4,2]) {
  %x = f32[8]{0:T(128)S(1)} parameter(0)
  %y = f32[4,2]{1,0:T(8,128)S(1)} parameter(1)
  ROOT %sums = (f32[8]{0:T(128)S(1)}, f32[4,2]{1,0:T(8,128)S(1)}) all-reduce(%x, /*index=1*/%y), to_apply=%sum
}
"""


def test_an_exchange_of_several_arrays_with_layouts_of_tpus_is_one():
    (row,) = counts.read(OF_TPU)
    assert (row.operation, row.num_bytes) == ("all-reduce", 2 * (32 + 32))
