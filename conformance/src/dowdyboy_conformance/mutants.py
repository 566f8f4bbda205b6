"""Trainers that are deliberately wrong in one point each, and the checks that must notice.

A mutant is a harness like any other, so ``--backend dowdyboy_conformance.mutants:NoStep`` runs the checks on it. With
``-p dowdyboy_conformance.mutants`` only the pairs of :data:`EXPECTED` are run.
"""

from __future__ import annotations

import pytest

from ._mutants_of_checkpoints import (
    BetterOneLost,
    DeafToSignals,
    DigestsUnread,
    HalfLoaded,
    IndexUnsealed,
    KeysTwice,
    KindsMixed,
    MeasuredByAnEarlierRun,
    OneDifferenceTold,
    ReadsEverything,
    RunsOfOneNumber,
    SavesWhatIsYetToCome,
    StopsAtTheEnd,
    StreamsUntried,
    TextsUnchecked,
    UserOverruled,
    ValidatesAgain,
    WritesInTheLoop,
)
from ._mutants_of_processes import (
    AugmentedByRank,
    BuffersAtHome,
    ChangeUntold,
    DivergenceUnseen,
    EqualStreams,
    EvaluationFilledUp,
    EveryLossGathered,
    EveryoneLogs,
    EverythingEverywhere,
    ExchangedEachBatch,
    GradientsAtHome,
    GradientsSummed,
    NormAtHome,
    OneStreamSaved,
    OverflowShared,
    OwnValues,
    RecordsAtHome,
    RecordsByRank,
    RecordsOneByOne,
    ScheduledByEach,
    WrappedNames,
)
from ._mutants_of_state import (
    CurvesDoubled,
    EpochIgnored,
    ErrorsSwallowed,
    EverythingLoaded,
    FitUnseeded,
    HalfLineStays,
    LinesForgotten,
    LossUndivided,
    NoClipping,
    OldOnesStay,
    PartialWindowDropped,
    PointsStay,
    PositionForgotten,
    PrefixMatching,
    RecordsForgotten,
    RunLogWiped,
    SavedTooEarly,
    SavingDraws,
    SchedulerForgotten,
    SeedIgnored,
    SlotsForgotten,
    StepsRestart,
    StreamsForgotten,
    StreamsShared,
    TuplesBecomeLists,
)
from ._mutants_of_training import (
    BestForgotten,
    ClipsTooMuch,
    EveryLossRead,
    GradientsInVal,
    LastOfEqualsIsBest,
    MeanInFloat32,
    NanIsBest,
    NeverEval,
    NeverTrainAgain,
    NoStep,
    NoZeroGrad,
    PlateauGetsNan,
    RecordsAlias,
    RecordsNarrow,
    RecordsReversed,
    RecordsStay,
    SchedulerTwice,
    StateReadAtOnce,
    VarianceBiased,
)
from ._mutation import Mutant, Spoilt

EXPECTED: dict[type[Spoilt], dict[str, str]] = {
    NoStep: {"N-1": "test_sixty_steps_follow_the_formulas"},
    NoZeroGrad: {"L-2": "test_gradients_are_cleared_between_windows", "N-1": "test_sixty_steps_follow_the_formulas"},
    NeverEval: {"H-4": "test_modes_and_gradients_in_each_hook", "N-2": "test_dropout_is_off_in_validation"},
    NeverTrainAgain: {"H-4": "test_modes_and_gradients_in_each_hook"},
    GradientsInVal: {"H-4": "test_modes_and_gradients_in_each_hook"},
    RecordsReversed: {"R-1": "test_values_are_stacked", "R-6": "test_records_are_of_one_epoch_and_of_some_batches"},
    RecordsAlias: {"R-4": "test_a_record_is_a_copy_without_a_graph"},
    RecordsStay: {"R-6": "test_records_are_of_one_epoch_and_of_some_batches"},
    RecordsNarrow: {"R-2": "test_values_are_stacked"},
    MeanInFloat32: {"B-1": "test_the_value_is_the_mean_of_the_record"},
    LastOfEqualsIsBest: {"B-2": "test_the_best_epoch"},
    NanIsBest: {"B-3": "test_without_a_finite_value_there_is_no_best"},
    BestForgotten: {"B-9": "test_a_resumed_fit_knows_the_best_so_far"},
    SchedulerTwice: {"L-4": "test_a_clock_scheduler_steps_once_per_epoch"},
    PlateauGetsNan: {"L-5": "test_a_plateau_scheduler_follows_the_value"},
    OldOnesStay: {"B-5": "test_the_best_epoch"},
    PrefixMatching: {"B-6": "test_folders_are_told_apart_by_their_whole_names"},
    SavedTooEarly: {"L-1": "test_the_order_of_events_with_a_clock_scheduler"},
    SavingDraws: {"S-5": "test_nothing_but_the_hooks_draws"},
    SlotsForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    SchedulerForgotten: {"C-7": "test_a_plateau_scheduler_is_resumed"},
    StreamsForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    RecordsForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    PositionForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    EverythingLoaded: {"C-8": "test_weights_only_takes_the_weights_alone"},
    CurvesDoubled: {"G-4": "test_metrics_of_a_resumed_run_have_no_gap_and_no_double"},
    PointsStay: {"G-9": "test_a_point_reaches_the_files_by_itself"},
    LinesForgotten: {"G-10": "test_lines_wait_for_a_disk_that_refuses_them"},
    HalfLineStays: {"G-10": "test_half_a_line_of_a_killed_run_is_dropped"},
    RunLogWiped: {"G-1": "test_the_run_log_is_appended_to"},
    SeedIgnored: {"D-2": "test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch"},
    EpochIgnored: {"D-2": "test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch"},
    StreamsShared: {"S-5": "test_nothing_but_the_hooks_draws"},
    FitUnseeded: {"S-2": "test_fit_seeds_them_again"},
    TuplesBecomeLists: {"D-4": "test_a_batch_of_any_nesting_keeps_its_types"},
    LossUndivided: {"O-1": "test_a_window_steps_as_one_large_batch"},
    PartialWindowDropped: {"O-2": "test_a_last_window_is_averaged_over_what_it_has"},
    NoClipping: {"O-3": "test_clipping_bounds_the_norm_of_the_averaged_gradient"},
    EveryLossRead: {"G-8": "test_tensors_are_read_only_when_something_is_drawn"},
    StateReadAtOnce: {"G-8": "test_tensors_are_read_only_when_something_is_drawn"},
    ErrorsSwallowed: {"H-7": "test_an_error_in_a_hook_reaches_the_caller"},
    OverflowShared: {"O-8": "test_an_overflow_skips_one_optimizer_and_halves_the_scale"},
    EverythingEverywhere: {"W-2": "test_training_batches_are_dealt_out"},
    AugmentedByRank: {"W-3": "test_training_batches_are_dealt_out"},
    EvaluationFilledUp: {"W-4": "test_evaluation_is_that_of_one_process_to_the_last_bit"},
    RecordsByRank: {"W-5": "test_evaluation_is_that_of_one_process_to_the_last_bit"},
    GradientsAtHome: {"W-6": "test_training_is_that_of_one_process_on_the_joined_batches"},
    GradientsSummed: {"W-6": "test_training_is_that_of_one_process_on_the_joined_batches"},
    ExchangedEachBatch: {"W-7": "test_gradients_stay_at_home_until_the_window_closes"},
    BuffersAtHome: {"W-8": "test_buffers_are_those_of_the_first_process"},
    NormAtHome: {"W-9": "test_sync_bn_is_batch_norm_over_the_joined_batch"},
    ScheduledByEach: {"W-10": "test_schedules_and_the_best_are_those_of_one_process"},
    RecordsAtHome: {"W-10": "test_schedules_and_the_best_are_those_of_one_process"},
    OwnValues: {"W-10": "test_all_follow_the_value_of_the_first_process"},
    EqualStreams: {"W-11": "test_processes_draw_different_numbers"},
    EveryoneLogs: {"W-12": "test_there_is_one_of_everything"},
    DivergenceUnseen: {"W-13": "test_weights_that_differ_are_an_error_and_are_not_saved"},
    OneStreamSaved: {"W-16": "test_a_resumed_run_of_several_is_bitwise_the_uninterrupted_one"},
    WrappedNames: {"W-17": "test_a_checkpoint_serves_one_process"},
    ChangeUntold: {"W-17": "test_a_checkpoint_serves_one_process"},
    RecordsOneByOne: {"W-20": "test_neither_batches_nor_names_need_exchanges_of_their_own"},
    EveryLossGathered: {"W-20": "test_neither_batches_nor_names_need_exchanges_of_their_own"},
    WritesInTheLoop: {"C-20": "test_training_goes_on_while_a_checkpoint_is_written"},
    SavesWhatIsYetToCome: {"C-20": "test_training_goes_on_while_a_checkpoint_is_written"},
    DigestsUnread: {
        "C-10": "test_a_damaged_file_is_refused",
        "C-17": "test_every_changed_byte_and_every_cut_is_noticed",
    },
    TextsUnchecked: {"C-21": "test_an_index_with_a_field_of_another_kind_is_refused"},
    HalfLoaded: {"C-9": "test_nothing_of_what_is_refused_is_left"},
    KindsMixed: {"C-9": "test_another_kind_of_optimizer_or_scheduler_is_refused"},
    OneDifferenceTold: {"C-9": "test_all_differences_are_told_at_once"},
    KeysTwice: {"C-21": "test_a_hostile_checkpoint_is_refused"},
    StreamsUntried: {"C-21": "test_a_hostile_checkpoint_is_refused"},
    MeasuredByAnEarlierRun: {"B-9": "test_a_killed_run_is_not_measured_by_an_earlier_one"},
    RunsOfOneNumber: {"C-11": "test_auto_goes_on_from_the_run_that_went_on_last"},
    IndexUnsealed: {"C-17": "test_every_changed_byte_and_every_cut_is_noticed"},
    ReadsEverything: {"C-22": "test_what_is_not_known_is_ignored"},
    DeafToSignals: {"C-18": "test_a_stopped_run_is_saved_at_the_next_batch_and_goes_on"},
    UserOverruled: {"C-18": "test_a_handler_of_the_user_stays_in_force"},
    ValidatesAgain: {"C-19": "test_a_stopped_run_is_saved_at_the_next_batch_and_goes_on"},
    BetterOneLost: {"B-10": "test_a_resumed_run_keeps_a_better_checkpoint"},
    StopsAtTheEnd: {"W-19": "test_a_signal_to_one_process_stops_all_at_the_same_batch"},
    ClipsTooMuch: {
        "O-3": "test_clipping_divides_by_the_norm_plus_a_millionth",
        "N-4": "test_long_training_is_that_of_the_reference",
    },
    VarianceBiased: {"N-3": "test_the_running_variance_is_biased_or_not_as_the_framework_has_it"},
    StepsRestart: {"H-1": "test_the_order_of_events_with_a_clock_scheduler"},
}
"""For each mutant the check that must fail, by the clause that it breaks. (A check with parameters must fail once.)"""

CONTROL = Mutant


def backend_of(mutant: type[Spoilt]) -> str:
    """What ``--backend`` calls a mutant."""
    return f"{__name__}:{mutant.__name__}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the checks that a mutant must fail, and for the control all of those."""
    wanted = {backend_of(mutant): set(checks.values()) for mutant, checks in EXPECTED.items()}
    wanted[backend_of(CONTROL)] = set().union(*wanted.values())
    kept = []
    for item in items:
        name, _, parameters = item.name.partition("[")
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("processes", 2) != 2:
            continue  # starting three is slow, and two show it as well
        if any(name in checks for backend, checks in wanted.items() if parameters.rstrip("]").split("-")[0] == backend):
            kept.append(item)
    items[:] = kept
