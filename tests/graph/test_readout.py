import pytest
import torch
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.graph.forward import READOUTS, OutputReader, Readout

STEPS = torch.rand(4, 2, 3)  # (T, N, classes)


def class_scores(output: object, samples: int) -> Tensor:
    """Scores (N, classes) of a single output."""
    return OutputReader(Readout("auto"))(output, samples).sum(0)


def test_scores_are_the_sum_over_time_of_a_tensor_or_a_list() -> None:
    assert torch.equal(class_scores(STEPS, 2), STEPS.sum(0))
    assert torch.equal(class_scores(list(STEPS), 2), STEPS.sum(0))


def test_an_output_without_time_is_taken_as_it_is() -> None:
    scores = torch.rand(2, 3)
    assert torch.equal(class_scores(scores, 2), scores)


@pytest.mark.parametrize("output", [torch.rand(4, 3, 3), torch.rand(2), {"a": 1}])
def test_any_other_output_is_refused(output: object) -> None:
    with pytest.raises(InputError, match="--readout"):
        class_scores(output, 2)


def test_of_a_tuple_the_spikes_are_read_and_a_list_is_over_time() -> None:
    spikes, membranes = torch.rand(4, 2, 3), torch.rand(4, 2, 3)
    assert torch.equal(class_scores((spikes, membranes), 2), spikes.sum(0))
    assert torch.equal(class_scores((list(spikes), membranes), 2), spikes.sum(0))


EXPECTED = {"auto": STEPS, "sum": STEPS, "mean": STEPS.mean(0)[None], "last": STEPS[3][None]}


@pytest.mark.parametrize("how", EXPECTED)
@pytest.mark.parametrize(
    "output",
    [STEPS, STEPS.transpose(0, 1), list(STEPS), (STEPS, None), (list(STEPS), list(STEPS))],
    ids=["time first", "samples first", "list", "tuple", "tuple of lists"],
)
def test_every_layout_gives_the_steps_that_count(how: str, output: object) -> None:
    torch.testing.assert_close(
        OutputReader(Readout(how))(output, 2), EXPECTED[how], rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("how", READOUTS)
def test_an_output_without_time_is_one_step(how: str) -> None:
    assert torch.equal(OutputReader(Readout(how))(STEPS[0], 2), STEPS[:1])


def test_the_layout_of_the_first_batch_holds_for_a_last_one_as_long_as_time() -> None:
    last = torch.rand(4, 4, 3)  # N = T
    read = OutputReader(Readout())
    read(torch.rand(7, 4, 3), 7)  # surely samples first
    assert torch.equal(read(last, 4), last.transpose(0, 1))
    assert torch.equal(OutputReader(Readout())(last, 4), last)  # on its own it is read time first


def test_a_first_batch_that_was_misread_shows_at_the_next_of_another_length() -> None:
    read = OutputReader(Readout())
    read(torch.rand(4, 4, 3), 4)
    with pytest.raises(InputError, match=r"\(N, T, classes\) and put out \(T, N, classes\) before"):
        read(torch.rand(2, 4, 3), 2)


def test_spikes_of_any_type_are_scores() -> None:
    spikes = STEPS > 0.5
    assert torch.equal(OutputReader(Readout("mean"))(spikes, 2), spikes.float().mean(0)[None])


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.rand(8, 3), r"a float32 tensor of shape \(8, 3\) for 2 samples"),  # (N*T, classes)
        (torch.rand(4, 3, 3), r"shape \(4, 3, 3\)"),
        (torch.rand(2, 3, 4, 4), r"shape \(2, 3, 4, 4\)"),
        (torch.rand(2, 0), r"shape \(2, 0\)"),
        (torch.rand(2, 3, dtype=torch.complex64), "complex64"),
        ({"logits": STEPS, "mem": STEPS}, "a dict of logits, mem for 2 samples"),
        ([], "list"),
        ([STEPS[0], STEPS[0, :1]], r"a list of a float32 tensor of shape \(2, 3\) and 1 more"),
        ([(STEPS[0], STEPS[0])], "a list of a tuple"),
        (list(torch.rand(2, 3)), r"of shape \(3,\)"),
        (None, "NoneType"),
        ((), "tuple"),
    ],
)
def test_what_is_read_by_no_name_is_told_with_the_way_out(output: object, words: str) -> None:
    with pytest.raises(InputError, match=f"puts out .*{words}.*--readout file.py:function"):
        OutputReader(Readout())(output, 2)


def test_a_function_gets_the_raw_output_and_gives_the_scores() -> None:
    output = {"logits": STEPS}
    found = OutputReader(Readout(lambda given: given["logits"].amax(0)))(output, 2)
    assert torch.equal(found, STEPS.amax(0)[None])


@pytest.mark.parametrize(
    "returned",
    [None, [1.0], STEPS, torch.rand(3, 3), torch.zeros(2, 3, dtype=torch.int64), torch.rand(2, 0)],
)
def test_a_function_that_gives_no_scores_is_named(returned: object) -> None:
    def mine(output: object) -> Tensor:
        return returned  # type: ignore[return-value]  # that is the fault

    with pytest.raises(InputError, match=r"^--readout: mine returned .* for 2 samples"):
        OutputReader(Readout(mine))(STEPS, 2)
    with pytest.raises(InputError, match=r"^--readout: my.py:mine returned"):
        OutputReader(Readout(mine, name="my.py:mine"))(STEPS, 2)


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"unknown readout 'men'. did you mean mean\?"):
        Readout("men")
