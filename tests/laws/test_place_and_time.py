"""Grid, boundary, place and time cells and the phase code: what must hold of each."""

from __future__ import annotations

import math

import pytest
import torch

from backends import portable, reference
from neuro.errors import UsageError
from neuro.evaluate.place_fields import population_correlation
from neuro.memory.grid_cells import BoundaryCells, ContentGrid, GridCells
from neuro.memory.head_direction import ConjunctiveCells, HeadDirectionCells, PathIntegrator
from neuro.memory.phase_code import PhaseCode
from neuro.memory.place_cells import CompetitivePlaceCells, PlaceCells
from neuro.memory.time_cells import TimeCells

SPACINGS = (0.35, 0.5, 0.7, 1.0)


def test_a_grid_cell_is_hexagonal_and_its_maximum_is_one():
    """Around a field's centre: the same after 60 degrees, a maximum of 1 there and one spacing away, 0 at its least."""
    grid = GridCells([0.4], side=3, environment=5)
    centre = (grid.to_position[0] @ (grid.offsets[4] - grid.shift[0])).unsqueeze(0)
    angles = torch.arange(360) * (math.pi / 180)
    ring = torch.stack([torch.cos(angles), torch.sin(angles)], 1)
    assert float(grid(centre)[0, 4]) == pytest.approx(1.0, abs=1e-6)
    for radius in (0.07, 0.2, 0.4):
        rates = grid(centre + radius * ring)[:, 4]
        assert torch.allclose(rates, rates.roll(60), atol=1e-5)
    assert float((rates - rates.roll(30)).abs().max()) > 0.5  # and not after 30, at a spacing's distance
    assert float(grid(centre + 0.4 * ring)[:, 4].max()) == pytest.approx(1.0, abs=1e-3)
    rates = grid(2.0 * torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)))
    assert float(rates.max()) <= 1.0 + 1e-6 and -1e-6 <= float(rates.min()) < 1e-3


def test_integrating_at_once_is_integrating_step_by_step_and_ends_at_the_position():
    grid = GridCells(SPACINGS)
    moves = 0.1 * torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(1))
    start = torch.rand(3, 2, generator=torch.Generator().manual_seed(2))
    together = grid.integrate(grid.phases(start), moves)
    phases = grid.phases(start)
    for step, after in zip(moves, together, strict=True):
        phases = grid.integrate(phases, step.unsqueeze(0))[0]
        apart = phases - after
        assert float((apart - apart.round()).abs().max()) < 1e-4
    there = start + moves.sum(0)
    assert torch.allclose(grid.rates(phases), grid(there), atol=1e-3)
    assert torch.allclose(grid.couple(phases, there + 0.1), there, atol=1e-4)  # sought 0.14 away
    per_module = moves.unsqueeze(2).expand(-1, -1, len(SPACINGS), -1)
    assert torch.allclose(grid.integrate(grid.phases(start), per_module), together, atol=1e-5)


def test_modules_that_err_apart_agree_on_their_mean():
    grid = GridCells(SPACINGS)
    own = 0.02 * torch.randn(1, len(SPACINGS), 2, generator=torch.Generator().manual_seed(3))
    place = torch.tensor([0.3, 0.8])
    phases = grid.integrate(grid.phases(place), own)[0]
    assert torch.allclose(grid.couple(phases, place), place + own[0].mean(0), atol=1e-4)


def test_boundary_cells_fire_at_their_distance_from_their_wall():
    walls = BoundaryCells([0.0, -1.0], [2.0, 1.0], (0.0, 0.25))
    rates = walls(torch.tensor([[0.5, 1.0]])).reshape(4, 2)  # walls: left, bottom, right, top
    assert float(rates[0, 1]) == 1.0 and float(rates[3, 0]) == 1.0 and float(rates.min()) < 1e-3
    assert rates[3, 1] == pytest.approx(math.exp(-0.5 * (0.25 / ((0.25 + 0.2) / 4)) ** 2))


def test_head_direction_cells_fire_at_their_direction_and_half_as_much_at_the_half_width():
    cells = HeadDirectionCells(8, half_width=0.6, environment=2)
    angle = torch.atan2(cells.direction[:, 1], cells.direction[:, 0])
    for away, rate in ((0.0, 1.0), (0.6, 0.5), (-0.6, 0.5)):
        turned = torch.stack([torch.cos(angle + away), torch.sin(angle + away)], -1)
        assert torch.allclose(cells(3.0 * turned).diagonal(), torch.full((8,), rate), atol=1e-5), "whatever the length"
    assert float(cells(-cells.direction).diagonal().max()) < 0.01
    assert not cells(torch.zeros(2)).any()
    between = torch.remainder(torch.diff(angle), 2 * math.pi)
    assert torch.allclose(between, torch.full((7,), math.pi / 4), atol=1e-5)
    apart = HeadDirectionCells(8, environment=3).direction @ cells.direction.T
    assert float((apart - apart[0, 0]).diagonal().abs().max()) < 1e-5 and float(apart[0, 0]) < 0.99, (
        "they turn together"
    )


def test_conjunctive_cells_are_their_grid_in_one_direction_and_silent_in_the_other():
    grid, directions = GridCells(SPACINGS), HeadDirectionCells(2)
    cells = ConjunctiveCells(grid, directions, seed=1)
    places = torch.rand(50, 2, generator=torch.Generator().manual_seed(7))
    one, other = (cells(places, way.expand(50, 2)) for way in directions.direction)
    assert torch.allclose(one + other, grid(places), atol=0.02)
    assert cells.cells == grid.cells and float(torch.minimum(one, other).max()) < 0.02
    assert 0.3 < float((one.amax(0) > other.amax(0)).float().mean()) < 0.7, "some cells for each way"


def test_an_integrated_path_errs_with_the_root_of_its_length_and_walls_correct_it():
    middle = torch.full((401, 2), 0.5)
    middle[:, 0] += 0.2 * torch.remainder(torch.arange(401), 2)  # to and fro, far from all walls
    odometer = PathIntegrator([0.0, 0.0], [1.0, 1.0], error=0.05)
    generator = torch.Generator().manual_seed(8)
    wrong = torch.stack([odometer.follow(middle, generator) - middle for _ in range(300)])
    assert not wrong[:, 0].any()
    for steps in (100, 400):
        assert float(wrong[:, steps].std()) == pytest.approx(0.05 * math.sqrt(0.2 * steps), rel=0.1)
    path = torch.stack([torch.linspace(0.3, 0.99, 200), torch.full((200,), 0.5)], 1)
    off = odometer.follow(path, generator) - path
    touching = path[:, 0] > 0.95
    assert not off[touching, 0].any() and off[~touching, 0][1:].any() and off[touching, 1].all(), (
        "across the wall alone"
    )
    assert torch.equal(PathIntegrator([0.0, 0.0], [1.0, 1.0], error=0.0).follow(middle), middle)
    still = torch.full((30, 2), 0.4)
    assert torch.equal(odometer.follow(still), still), "who stays does not err"


def test_what_a_path_is_believed_to_be_does_not_depend_on_what_comes_later():
    path = torch.cumsum(0.02 * torch.randn(300, 2, generator=torch.Generator().manual_seed(9)), 0)
    odometer = PathIntegrator([-0.3, -0.3], [0.3, 0.3], error=0.1)
    whole = odometer.follow(path, torch.Generator().manual_seed(10))
    changed = torch.cat([path[:200], path[200:] + 0.2])
    again = odometer.follow(changed, torch.Generator().manual_seed(10))
    assert torch.equal(whole[:200], again[:200]) and not torch.equal(whole[200:], again[200:])


@pytest.fixture(scope="module")
def square():
    """Places of a box, and place cells that learned in it."""
    places = torch.rand(1500, 2, generator=torch.Generator().manual_seed(4))
    grid = GridCells(SPACINGS)
    cells = CompetitivePlaceCells(grid.cells, 200)
    start = cells.init_state(1)
    return places, grid, cells, start, cells.learn(grid(places), start, cells.targets(1))


def test_place_cells_keep_to_their_budget(square):
    places, grid, cells, _, state = square
    share = (cells.activity(grid(places), state) > 0).float().mean()
    assert 0.02 <= float(share) <= 0.04
    assert float(cells.targets(1).mean()) == pytest.approx(0.03)


def test_learning_changes_no_state_but_its_own_and_keeps_weights_nonnegative_and_unit(square):
    places, grid, cells, start, state = square
    again = cells.init_state(1)
    assert all(torch.equal(a, b) for a, b in zip(start, again, strict=True))
    assert float(state.weights.min()) >= 0.0
    assert torch.allclose(state.weights.norm(dim=1), torch.ones(200), atol=1e-5)
    assert not ((state.weights > 0) & ~(start.weights > 0)).any()  # no connection is made
    one = cells.learn(grid(places[:7]), start, cells.targets(1))
    two = cells.learn(grid(places[7:20]), one, cells.targets(1))
    once = cells.learn(grid(places[:20]), start, cells.targets(1))
    assert all(torch.equal(a, b) for a, b in zip(once, two, strict=True))


def test_fields_arise_and_another_environment_remaps_them(square):
    """Neighbouring places share cells, distant ones do not; the same cells on other grids are another map."""
    places, grid, cells, _, state = square
    here = cells.activity(grid(places), state)
    near = cells.activity(grid(places + 0.01), state)
    same = population_correlation(here.T.numpy(), near.T.numpy())
    far = population_correlation(here.T.numpy(), here[torch.randperm(len(here))].T.numpy())
    other = cells.activity(GridCells(SPACINGS, environment=9)(places), state)
    remapped = population_correlation(here.T.numpy(), other.T.numpy())
    assert same > 0.8 and far < 0.3 and remapped < 0.3, (same, far, remapped)


def test_a_second_environment_that_is_learned_is_another_map_and_wide_targets_make_them_alike(square):
    places, grid, _, _, _ = square
    there, alike = GridCells(SPACINGS, environment=9), []
    for spread in (0.7, 1.5):
        cells = CompetitivePlaceCells(grid.cells, 200, spread=spread)
        first = cells.learn(grid(places), cells.init_state(1), cells.targets(1))
        second = cells.learn(there(places), first, cells.targets(1))
        maps = cells.activity(grid(places), first), cells.activity(there(places), second)
        alike.append(population_correlation(*(found.T.numpy() for found in maps)))
    assert alike[0] < 0.3 and alike[0] < alike[1] - 0.05, alike


def test_what_place_cells_refuse():
    with pytest.raises(UsageError, match=r"sparsity: got 0.0, expected above 0 and at most 1.\nGive a share"):
        CompetitivePlaceCells(10, 10, sparsity=0.0)
    with pytest.raises(UsageError, match=r"connected: got 2, expected"):
        CompetitivePlaceCells(10, 10, connected=2)
    with pytest.raises(UsageError, match=r"spacings: got \[0.0\], expected one or more above 0.\nGive the spacing"):
        GridCells([0.0])
    with pytest.raises(
        UsageError, match=r"head direction: got 0 cells of half-width 0.785398, expected .*\nGive a number"
    ):
        HeadDirectionCells(0)
    with pytest.raises(
        UsageError, match=r"path integration: got an error of -1 and a reach of 0.05, expected .*\nGive the"
    ):
        PathIntegrator([0.0, 0.0], [1.0, 1.0], error=-1.0)


def test_learned_sparsity_starts_at_its_budget_and_is_trained_to_another():
    torch.manual_seed(0)
    cells = PlaceCells(32, 400, 0.03, portable.OPS, learned=True)
    x = torch.randn(8, 64, 32)
    count = (cells(x) > 0).sum(-1)
    assert 0.02 <= float(count.float().mean()) / 400 <= 0.04
    assert int(count.max()) <= cells.most == 48 and count.unique().numel() > 5  # a token's own number
    cells.sparsity = 0.06
    optimizer = torch.optim.Adam([cells.threshold], 0.01)
    before = cells.overspent(x).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = cells.overspent(x)
        loss.backward()
        optimizer.step()
    assert before > 0.1 and cells.overspent(x).item() < 0.01
    assert cells.share(x).mean().item() == pytest.approx(0.06, abs=0.006)
    assert torch.allclose(cells.share(x), (cells(x) > 0).float().mean(-1))


def test_learned_sparsity_gets_a_gradient_everywhere_and_the_fixed_one_keeps_its_parameters():
    cells = PlaceCells(16, 100, 0.05, portable.OPS, learned=True)
    cells(torch.randn(2, 30, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in cells.parameters())
    assert set(PlaceCells(16, 100, 0.05, portable.OPS).state_dict()) == {"project.weight", "project.bias"}


def test_a_content_grid_lies_on_the_plane_it_learns():
    torch.manual_seed(0)
    content = ContentGrid(24, GridCells([0.7, 1.1], side=4), portable.OPS)
    x = torch.randn(3, 5, 24)
    rates = content(x)
    assert rates.shape == (3, 5, 32)
    assert torch.allclose(rates, content.grid(x @ content.plane.weight.T), atol=1e-5)
    rates.square().sum().backward()
    assert content.plane.weight.grad.abs().sum() > 0 and len(list(content.parameters())) == 1


@pytest.mark.parametrize("ops", [reference.OPS, portable.OPS], ids=lambda ops: ops.name)
def test_time_cells_scan_as_they_step_and_start_anew_at_boundaries(ops):
    cells = TimeCells(12, 1.0, 1000.0, ops)
    boundary = (torch.rand(2, 40, generator=torch.Generator().manual_seed(5)) < 0.1).float()
    seconds = 0.5 + torch.rand(2, 40, generator=torch.Generator().manual_seed(6))
    for durations in (None, seconds):
        whole, last = cells.scan(boundary, cells.init_state(2), durations)
        state, rows = cells.init_state(2), []
        for t in range(40):
            part = None if durations is None else durations[:, t : t + 1]
            row, state = cells.scan(boundary[:, t : t + 1], state, part)
            rows.append(row)
        assert torch.allclose(whole, torch.cat(rows, 1), atol=1e-6) and torch.allclose(last.elapsed, state.elapsed)
        assert not whole[boundary > 0].any()
        elapsed, expected = [0.0, 0.0], []
        for t in range(40):
            step = [1.0, 1.0] if durations is None else durations[:, t].tolist()
            elapsed = [0.0 if boundary[b, t] else elapsed[b] + step[b] for b in range(2)]
            expected.append(cells(torch.tensor(elapsed)))
        assert torch.allclose(whole, torch.stack(expected, 1), atol=1e-4)


def test_stretched_time_is_the_same_activity_further_on():
    cells = TimeCells(30, 1.0, 1e4, portable.OPS)
    ratio = math.exp(cells.step)
    t = torch.tensor([3.0, 20.0, 400.0])
    assert torch.allclose(cells(t)[:, :-4], cells(t * ratio**4)[:, 4:], atol=1e-5)
    assert (cells(torch.exp(cells.log_tau)).argmax(-1) == torch.arange(30)).all()
    assert not cells(torch.zeros(1)).any()


def test_the_phase_code_resolves_positions_near_far_and_beyond():
    code = PhaseCode(768)
    values = code(torch.arange(512))
    assert torch.allclose(values.square().mean(-1), torch.ones(512), atol=1e-5)
    unit = torch.nn.functional.normalize(values, dim=-1)
    assert float((unit[1:] * unit[:-1]).sum(-1).max()) < 0.99
    assert float(unit[0] @ unit[-1]) < 0.9
    singular = torch.linalg.svdvals(values.double())
    assert int((singular > 0.1 * singular[0]).sum()) >= 64
    alike = unit @ unit.T - 2.0 * torch.eye(512)
    assert float(alike.max()) < 0.99  # no two positions are the same
    for start in (4096, 10**6):  # far beyond, as well as at the beginning
        further = torch.nn.functional.normalize(code(torch.arange(start, start + 256)), dim=-1)
        assert 0.7 < float((further[1:] * further[:-1]).sum(-1).min())
        assert float((further[1:] * further[:-1]).sum(-1).max()) < 0.99


def test_the_phase_code_equals_its_formula_in_float64_up_to_a_million():
    code = PhaseCode(64, 8.0, 4096.0, 5)
    at = torch.tensor([0, 1, 777, 1023, 1024, 65_537, 1_000_003])
    period = 8.0 * 512.0 ** (torch.arange(16, dtype=torch.float64) / 15)
    theta = 2 * math.pi * torch.remainder(at.double().unsqueeze(1) / period, 1.0)
    loud = (1 + torch.cos(theta)) / 2
    parts = [torch.cos(theta), torch.sin(theta), loud * torch.cos(5 * theta), loud * torch.sin(5 * theta)]
    wanted = torch.stack(parts, -1).flatten(1)
    wanted = wanted / wanted.square().mean(-1, keepdim=True).sqrt()
    assert float((code(at).double() - wanted).abs().max()) < 5e-3
    assert float((code(at[:5]).double() - wanted[:5]).abs().max()) < 2e-4


def test_what_time_cells_and_the_phase_code_refuse():
    with pytest.raises(UsageError, match=r"time cells: got 1 from 1 to 10, expected 2 or more.*\nGive the range"):
        TimeCells(1, 1.0, 10.0, portable.OPS)
    with pytest.raises(UsageError, match=r"phase code: got a width of 30, expected a multiple of 4.\nRound it up"):
        PhaseCode(30)
    with pytest.raises(UsageError, match=r"got periods from 1 to 8192 and 5 gammas, expected 2 <= .*\nGive longer"):
        PhaseCode(32, shortest=1.0)
