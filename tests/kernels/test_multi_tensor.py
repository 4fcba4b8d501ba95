"""The tables that the kernels read: every element of every tensor once, and nothing uploaded that did not change."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import pytest
import torch

from fusetune.kernels import KERNELS, FusedSGD
from fusetune.kernels.optimizers import tables
from fusetune.kernels.optimizers.tables import MultiTensorTable, _chunks, is_flat
from fusetune.kernels.static.recorder import record_launches

CPU = torch.device("cpu")


def table_of(*tensors: torch.Tensor) -> MultiTensorTable:
    """Return a table of single-stream fp32 records."""
    table = MultiTensorTable([torch.float32], CPU)
    table.update([tensors], [0] * len(tensors), [(1.0,)])
    return table


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_calls_on_other_tensors_list_no_chunks_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an optimizer. Whoever times calls sends each one's inputs from another process."""
    listed = []

    def counted(sizes: Sequence[int], block_size: int) -> torch.Tensor:
        listed.append(sizes)
        return _chunks(sizes, block_size)

    monkeypatch.setattr(tables, "_chunks", counted)
    kernel = KERNELS[name]
    tables.kept_table.cache_clear()
    for seed in range(3):
        given = pickle.loads(pickle.dumps(kernel.make_inputs(1000, torch.float32, CPU, seed)))
        wanted = copy.deepcopy(given)
        kernel.fused(**given)
        kernel.reference(**wanted)
        torch.testing.assert_close(given["streams"], wanted["streams"])
    assert len(listed) == 1


@pytest.mark.parametrize("sizes", [[], [0], [1], [1024], [1025], [0, 3000, 0, 1, 1024, 5]])
def test_chunks_cover_every_element_once(sizes: list[int]) -> None:
    covered = [torch.zeros(size) for size in sizes]
    for record, block in _chunks(sizes, 1024).tolist():
        piece = covered[record][block * 1024 : (block + 1) * 1024]
        assert piece.numel() > 0
        piece += 1
    assert all(bool((tensor == 1).all()) for tensor in covered)


def test_chunks_of_a_tensor_above_two_to_the_31_elements_are_counted_right() -> None:
    chunks = _chunks([2**31 + 1], 1024)
    assert len(chunks) == 2**21 + 1
    assert chunks[-1].tolist() == [0, 2**21]


def test_records_hold_addresses_sizes_and_rows() -> None:
    a, b = torch.zeros(5), torch.zeros(7)
    table = MultiTensorTable([torch.float32, torch.float32], CPU)
    table.update([(a, b), (b[:5], b)], [1, 0], [(1.0,), (2.0,)])
    records = table._records.tolist()
    assert [record[:2] for record in records] == [[a.data_ptr(), b.data_ptr()], [b.data_ptr()] * 2]
    assert [record[5] for record in records] == [5, 7]
    assert [record[7] for record in records] == [1, 0]
    assert table._rows[:, 0].tolist() == [1.0, 2.0]


def test_a_sixth_stream_takes_a_second_record() -> None:
    columns = [[torch.zeros(5), torch.zeros(7)] for _ in range(6)]
    table = MultiTensorTable([torch.float32] * 6, CPU)
    table.update(columns, [0, 0], [(1.0,)])
    records = table._records.view(-1, 8)
    for i, (record, _) in enumerate(table._chunks.tolist()):
        addresses = [*records[record, :5].tolist(), records[record + 1, 0].item()]
        assert addresses == [column[i].data_ptr() for column in columns]
        assert records[record, 5] == columns[0][i].numel()


def test_one_misaligned_stream_makes_the_record_unaligned() -> None:
    store = torch.zeros(32)
    assert store.data_ptr() % 16 == 0
    assert table_of(store[:16])._records[0, 6] == 1
    assert table_of(store[4:20])._records[0, 6] == 1
    assert table_of(store[1:17])._records[0, 6] == 0
    pair = MultiTensorTable([torch.float32] * 2, CPU)
    pair.update([(store[:16],), (store[2:18],)], [0], [(1.0,)])
    assert pair._records[0, 6] == 0


@pytest.mark.parametrize(
    ("dtype", "size", "expected"),
    [
        (torch.float32, 8, True),
        (torch.float32, 6, False),
        (torch.bfloat16, 8, True),
        (torch.bfloat16, 12, False),
    ],
)
def test_vector_only_needs_whole_128_bit_vectors(dtype: torch.dtype, size: int, expected: bool) -> None:
    table = MultiTensorTable([dtype], CPU)
    table.update([(torch.zeros(size, dtype=dtype),)], [0], [(1.0,)])
    assert table.vector_only is expected


def test_nothing_is_uploaded_when_nothing_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [[torch.zeros(9), torch.zeros(2000)]]
    table = MultiTensorTable([torch.float32], CPU)
    uploads: list[tuple[int, ...]] = []
    upload = table._upload
    monkeypatch.setattr(table, "_reads_host", False)  # as a GPU does not
    monkeypatch.setattr(table, "_upload", lambda t: (uploads.append(tuple(t.shape)), upload(t))[1])  # type: ignore[func-returns-value]
    table.update(tensors, [0, 0], [(1.0,)])
    assert uploads == [(2, 8), (3, 2), (1, 16)]
    uploads.clear()
    table.update(tensors, [0, 0], [(1.0,)])
    assert uploads == []
    table.update(tensors, [0, 0], [(2.0,)])
    assert uploads == [(1, 16)]
    uploads.clear()
    moved = [[torch.zeros(9), tensors[0][1]]]
    table.update(moved, [0, 0], [(2.0,)])
    assert uploads == [(2, 8)]


def test_a_new_tensor_at_an_old_address_is_no_change_and_a_new_address_is_one() -> None:
    store = torch.zeros(64)
    table = table_of(store[:16])
    records = table._records
    table.update([(store.view(8, 8)[:2].view(-1),)], [0], [(1.0,)])
    assert table._records is records
    table.update([(store[16:32],)], [0], [(1.0,)])
    assert table._records[0, 0] == store.data_ptr() + 64


def test_scalars_from_the_device_take_the_place_of_host_ones() -> None:
    table = table_of(torch.zeros(4))
    table.update([(torch.zeros(4),)], [0], [torch.tensor([3.0, 4.0], dtype=torch.float64)])
    assert table._rows[0, :3].tolist() == [3.0, 4.0, 0.0]
    table.update([(torch.zeros(4),)], [0], [(1.0,)])
    assert table._rows[0, :2].tolist() == [1.0, 0.0]


def test_only_one_run_of_memory_in_one_order_is_flat() -> None:
    image = torch.zeros(2, 3, 4, 5)
    last = image.to(memory_format=torch.channels_last)
    assert is_flat((last, last.clone()))
    assert not is_flat((image, last))
    assert not is_flat((torch.zeros(6, 10)[:, ::2],))
    assert not is_flat((torch.zeros(1).expand(4),))
    assert is_flat((torch.zeros(()), torch.ones(())))
    assert is_flat((torch.zeros(0, 3),))


@pytest.mark.parametrize(("sizes", "vector_only"), [([512, 2048], True), ([512, 7], False)])
def test_scalar_path_is_compiled_in_only_where_a_tensor_needs_it(sizes: list[int], vector_only: bool) -> None:
    params = [torch.nn.Parameter(torch.empty(size)) for size in sizes]
    for p in params:
        p.grad = torch.empty_like(p)
    with record_launches("sm_90") as recording:
        FusedSGD(params).step()
    assert [launch.constants["VECTOR_ONLY"] for launch in recording.launches] == [vector_only]


def test_on_a_cpu_moved_tensors_and_new_scalars_are_written_where_the_tables_lie() -> None:
    a, b = torch.zeros(9), torch.zeros(9)
    table = MultiTensorTable([torch.float32], CPU)
    table.update([[a]], [0], [(1.0, 2.0)])
    records, rows = table._records, table._rows
    table.update([[b]], [0], [(3.0,)])
    assert table._records is records
    assert table._rows is rows
    assert records[0, 0].item() == b.data_ptr()
    assert rows[0, :2].tolist() == [3.0, 0.0]


def test_on_a_cpu_scalars_that_a_device_worked_out_leave_the_hosts_alone() -> None:
    table = table_of(torch.zeros(9))
    table.update([[torch.zeros(9)]], [0], [torch.tensor([5.0])])
    assert table._rows[0, 0].item() == 5.0
    table.update([[torch.zeros(9)]], [0], [(1.0,)])
    assert table._rows[0, 0].item() == 1.0
