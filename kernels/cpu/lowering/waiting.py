"""Programs that wait for others: each has a thread, and a deadlock ends the launch with an error.

A program waits in a loop whose end depends on memory that others write, or in a poll. On a GPU all programs that fit
run at once. On a CPU a later program might never begin, so a kernel that can wait has an entry of its own. It begins
with as many threads as other kernels have. It adds one each time that a program waits while others have not begun, up
to `MOST_AT_ONCE`. A loop that waits yields the processor in each iteration.

An iteration is idle if, since the one before, no program has changed memory, begun, ended or left its loop. The values
that the loop's end depends on must also be unchanged. It is a deadlock if all programs that run have been idle for
`LONGEST_WAIT_S`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fusetune.kernels.cpu.diagnostics import place
from fusetune.kernels.cpu.failures import STUCK
from fusetune.kernels.cpu.ir_tree import Block, Operation, Value
from fusetune.kernels.cpu.lowering.constants import c_string

if TYPE_CHECKING:
    from fusetune.kernels.cpu.lowering.state import FunctionState

MOST_AT_ONCE = 1024  # threads, at least as many as the programs that a GPU's multiprocessors run at once
LONGEST_WAIT_S = 5.0

_STACK_BYTES = 1 << 20
_READS_OF_OTHERS = ("tt.atomic_rmw", "tt.atomic_cas", "tt.atomic_load", "tt.atomic_poll")

GRID = """
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <time.h>
typedef struct launch launch_t;
typedef struct {
  launch_t *launch;
  jmp_buf out;
  uint64_t seen, digest, since, began;
  bool waiting, idle, timed;
} program_t;
"""
FIELD = "program_t *program; "

FUNCTIONS = r"""
#define NEVER UINT64_MAX
struct launch {
  const char *arguments, *failure, *stuck;
  void *bounds;
  int32_t size[3], threads, workers, waiting, idle, timed, made;
  int64_t programs, next, ended;
  uint64_t changes;
  bool refused, full;
  pthread_mutex_t making;
  pthread_t thread[MOST_AT_ONCE];
};
static void *work(void *launch);
INLINE uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
INLINE uint64_t digested(uint64_t digest, const void *bytes, int64_t size) {
  const unsigned char *const each = bytes;
  for (int64_t i = 0; i < size; ++i) digest = (digest ^ each[i]) * 0x100000001b3u;
  return digest;
}
/* Memory has changed, or a program has come further. */
INLINE void changed(const grid_t *grid) { __atomic_fetch_add(&grid->program->launch->changes, 1, __ATOMIC_SEQ_CST); }
/* Programs are left, and fewer than `threads` of those that run do not wait. */
static bool lacks_threads(const launch_t *all) {
  const int32_t workers = __atomic_load_n(&all->workers, __ATOMIC_SEQ_CST);
  return __atomic_load_n(&all->next, __ATOMIC_SEQ_CST) < all->programs &&
         workers - __atomic_load_n(&all->waiting, __ATOMIC_SEQ_CST) < all->threads;
}
static void begin_thread(launch_t *all) {
  pthread_mutex_lock(&all->making);
  if (lacks_threads(all) && all->made < MOST_AT_ONCE - 1 && !all->full) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    __atomic_fetch_add(&all->workers, 1, __ATOMIC_SEQ_CST);
    if (pthread_create(&all->thread[all->made], &attributes, work, all) == 0) ++all->made;
    else { all->refused = all->full = true; __atomic_fetch_sub(&all->workers, 1, __ATOMIC_SEQ_CST); }
    pthread_attr_destroy(&attributes);
  }
  pthread_mutex_unlock(&all->making);
}
/* Leave the processor to others: the longer the more it was in vain, and the more others wait as well. */
static void pause_from(const program_t *own, uint64_t now) {
  const uint64_t waited = now - own->began;
  if (waited < 50000) { sched_yield(); return; }
  const uint64_t most = 5000 * (1 + (uint64_t)__atomic_load_n(&own->launch->waiting, __ATOMIC_SEQ_CST));
  const struct timespec pause = {0, waited / 4 < most ? waited / 4 : most};
  nanosleep(&pause, NULL);
}
static void count(bool *own, bool is, int32_t *all) {
  if (is != *own) __atomic_fetch_add(all, is ? 1 : -1, __ATOMIC_SEQ_CST);
  *own = is;
}
/* One more turn of a loop that waits: `digest` stands for what its end depends on, beside memory. */
static __attribute__((noinline)) void wait_turn(const grid_t *grid, uint64_t digest, bool timed, const char *where) {
  program_t *const own = grid->program;
  launch_t *const all = own->launch;
  if (__atomic_load_n(&all->stuck, __ATOMIC_SEQ_CST) != NULL) longjmp(own->out, 1);
  const uint64_t changes = __atomic_load_n(&all->changes, __ATOMIC_SEQ_CST);
  const bool is_first = own->seen == NEVER, is_same = !is_first && digest == own->digest;
  count(&own->waiting, is_same, &all->waiting);
  count(&own->timed, is_same && timed, &all->timed);
  count(&own->idle, is_same && changes == own->seen, &all->idle);
  if (own->waiting && lacks_threads(all)) begin_thread(all);
  if (!own->idle) {
    if (!is_first && !is_same) changed(grid);
    own->seen = __atomic_load_n(&all->changes, __ATOMIC_SEQ_CST);
    own->digest = digest;
    own->since = now_ns();
    if (own->began == 0) own->began = own->since;
    pause_from(own, own->since);
    return;
  }
  const uint64_t now = now_ns();
  if (now - own->since >= LONGEST_WAIT_NS && __atomic_load_n(&all->timed, __ATOMIC_SEQ_CST) == 0 &&
      __atomic_load_n(&all->idle, __ATOMIC_SEQ_CST) == __atomic_load_n(&all->workers, __ATOMIC_SEQ_CST) &&
      __atomic_load_n(&all->changes, __ATOMIC_SEQ_CST) == own->seen) {
    const char *nobody = NULL;
    __atomic_compare_exchange_n(&all->stuck, &nobody, where, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    longjmp(own->out, 1);
  }
  pause_from(own, now);
}
/* The loop has ended. */
INLINE void wait_over(const grid_t *grid) {
  program_t *const own = grid->program;
  if (own->seen == NEVER) return;
  count(&own->waiting, false, &own->launch->waiting);
  count(&own->timed, false, &own->launch->timed);
  count(&own->idle, false, &own->launch->idle);
  own->seen = NEVER;
  own->began = 0;
  changed(grid);
}
"""

POLLING = r"""
#define POLL(suffix, type)                                                                                      \
  INLINE bool poll_##suffix(const grid_t *grid, const type *p, type expected, bool endless, uint64_t since,     \
                            uint64_t budget, const char *where) {                                               \
    bool found;                                                                                                 \
    while (!(found = __atomic_load_n(p, __ATOMIC_SEQ_CST) == expected)) {                                       \
      if (!endless && now_ns() - since >= budget) break;                                                        \
      wait_turn(grid, 0, !endless, where);                                                                      \
    }                                                                                                           \
    wait_over(grid);                                                                                            \
    return found;                                                                                               \
  }
POLL(16, uint16_t)
POLL(32, uint32_t)
POLL(64, uint64_t)
"""

ENTRY = r"""
static void *work(void *of) {{
  launch_t *const all = of;
  const int32_t x = all->size[0], y = all->size[1], z = all->size[2];
  const char *const arguments = all->arguments;
{unpacking}
  {scratch}
  program_t program = {{all}};
  while (__atomic_load_n(&all->stuck, __ATOMIC_SEQ_CST) == NULL) {{
    const int64_t i = __atomic_fetch_add(&all->next, 1, __ATOMIC_SEQ_CST);
    if (i >= all->programs) break;
    program.seen = NEVER;
    program.began = 0;
    program.waiting = program.idle = program.timed = false;
    grid_t place = {{{{i % x, i / x % y, i / x / y}}, {{x, y, z}}, &all->failure, &program{bounds}}};
    changed(&place);
    if (_setjmp(program.out) != 0) break;
    {call};
    __atomic_fetch_add(&all->ended, 1, __ATOMIC_SEQ_CST);
    changed(&place);
  }}
  {release}
  __atomic_fetch_sub(&all->workers, 1, __ATOMIC_SEQ_CST);
  return NULL;
}}
const char *{entry}(int32_t x, int32_t y, int32_t z, int32_t threads, const char *arguments) {{
  static __thread char complaint[1024];
{unpacking}
{beginning}
  const int64_t programs = (int64_t)x * y * z;
  if (programs == 0) return NULL;
  launch_t *const all = calloc(1, sizeof(launch_t));
  all->arguments = arguments;
  all->size[0] = x, all->size[1] = y, all->size[2] = z;
  all->programs = programs;
  {handing}
  all->threads = threads < MOST_AT_ONCE ? threads : MOST_AT_ONCE;
  all->workers = 1;
  pthread_mutex_init(&all->making, NULL);
  for (int32_t i = 1; i < all->threads && i < programs; ++i) begin_thread(all);
  work(all);
  /* Now all programs have begun, or none does any more: no thread is begun with. */
  pthread_mutex_lock(&all->making);
  const int32_t made = all->made;
  all->full = true;
  pthread_mutex_unlock(&all->making);
  for (int32_t i = 0; i < made; ++i) pthread_join(all->thread[i], NULL);
  const char *failure = all->failure;
{ending}
  if (all->stuck != NULL) {{
    const int64_t begun = all->next < programs ? all->next : programs;
    snprintf(complaint, sizeof complaint, "{stuck}%s: no program can go on; of %lld, %lld have ended, %lld wait, and "
             "%lld have not begun (at most %d run at once). What a program waits for must be written by another.",
             all->stuck, (long long)programs, (long long)all->ended, (long long)(begun - all->ended),
             (long long)(programs - begun), all->refused ? made + 1 : MOST_AT_ONCE);
    failure = complaint;
  }}
  pthread_mutex_destroy(&all->making);
  free(all);
  return failure;
}}
"""


def definitions(scratch_on_stack: int) -> str:
    """The C functions of a kernel whose programs can wait.

    Args:
        scratch_on_stack: bytes of scratch memory on a thread's stack.
    """
    return "\n".join(
        [
            f"#define MOST_AT_ONCE {MOST_AT_ONCE}",
            f"#define LONGEST_WAIT_NS {round(LONGEST_WAIT_S * 1e9)}u",
            f"#define STACK_BYTES {_STACK_BYTES + scratch_on_stack}",
            FUNCTIONS,
        ]
    )


def can_wait(functions: Iterable[Operation]) -> bool:
    """Return whether a program of a kernel can wait for another.

    Args:
        functions: all of its module.
    """
    operations = [each for function in functions for block in function.regions[0] for each in block.walk()]
    return any(
        each.name == "tt.atomic_poll" or (each.name == "scf.while" and waits(each)) for each in operations
    )


def waits(loop: Operation) -> bool:
    """Return whether the end of an `scf.while` depends on memory that others write, or is loop-invariant."""
    needed = _condition(loop)
    inside = _inside(loop)
    own = set(_arguments(loop))
    reads = [value.producer for value in needed if value.producer in inside]
    if any(each is not None and _reads_of_others(each, inside, own) for each in reads):
        return True
    return own.isdisjoint(needed)  # no iteration differs from the first


def emit_turn(state: FunctionState, loop: Operation) -> None:
    """Emit the end of an iteration. It is idle if the values that the loop's end depends on are unchanged."""
    needed = _condition(loop)
    digest = state.name("digest")
    state.line(f"uint64_t {digest} = 0;")
    for argument in loop.regions[0][0].arguments:
        if argument in needed:
            size = argument.type.elements * argument.type.bytes
            at = state.arrays[argument] if argument.type.is_tile else f"&{state.scalars[argument]}"
            state.line(f"{digest} = digested({digest}, {at}, {size});")
    state.line(f"wait_turn(grid, {digest}, false, {where(loop)});")


def where(operation: Operation) -> str:
    """A C string with the place of an operation. For one that holds others, the end of their last but one block."""
    named = [operation, *(block.operations[-1] for region in operation.regions for block in region)]
    found = next((each for each in named if each.source), operation)
    return c_string(place(found).encode().decode("latin-1"))


def entry(holds_to_bounds: bool, **parts: str) -> str:
    """The function that is called from Python, and the one that each thread runs.

    Args:
        holds_to_bounds: accesses are checked, see `bounds`.
        parts: as of the entry of other kernels.
    """
    bounds, handing = (", all->bounds", "all->bounds = &bounds;") if holds_to_bounds else ("", "")
    return ENTRY.format(stuck=STUCK, bounds=bounds, handing=handing, **parts)


def _reads_of_others(operation: Operation, inside: set[Operation], own: set[Value]) -> bool:
    """Return whether an operation reads memory that another program may write, by accident of place or on purpose."""
    if operation.name in (*_READS_OF_OTHERS, "tt.call"):
        return True
    if operation.name != "tt.load":
        return False
    if operation.flag("isVolatile"):
        return True
    behind = _closure([operation.operands[0]], inside, {})
    return not any(value in own or _is_read(value.producer, inside) for value in behind)


def _is_read(operation: Operation | None, inside: set[Operation]) -> bool:
    return (
        operation in inside
        and operation is not None
        and operation.name in ("tt.load", "tt.call", *_READS_OF_OTHERS)
    )


def _inside(loop: Operation) -> set[Operation]:
    return {each for region in loop.regions for block in region for each in block.walk()}


def _arguments(loop: Operation) -> list[Value]:
    return [argument for region in loop.regions for block in region for argument in block.arguments]


def _condition(loop: Operation) -> set[Value]:
    """All values that the end of a loop depends on."""
    (before,), (after,) = loop.regions
    condition, *handed_on = before.operations[-1].operands
    carried = {
        **dict(zip(before.arguments, after.operations[-1].operands, strict=True)),
        **dict(zip(after.arguments, handed_on, strict=True)),
    }
    return _closure([condition], _inside(loop), carried)


def _closure(values: Sequence[Value], inside: set[Operation], carried: dict[Value, Value]) -> set[Value]:
    """The transitive operands of values, by the operations inside.

    Args:
        carried: argument of a block -> its value at the next iteration.
    """
    found: set[Value] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        if value in carried:
            waiting.append(carried[value])
        producer = value.producer
        if producer is None or producer not in inside:
            continue
        waiting += producer.operands
        for block in (block for region in producer.regions for block in region):
            waiting += _ends(block)
    return found


def _ends(block: Block) -> list[Value]:
    """The results of a nested block, with all values that they are chosen by."""
    found = list(block.operations[-1].operands) if block.operations else []
    for operation in block.operations:
        for inner in (inner for region in operation.regions for inner in region):
            found += [*operation.operands, *_ends(inner)]
    return found
