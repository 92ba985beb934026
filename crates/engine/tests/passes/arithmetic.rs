//! Passes on nodes without weights.

use crate::check::{check, check_stays};

#[test]
fn what_depends_on_constants_alone_is_evaluated() {
    check(
        "fold_constants",
        "input %x [1, 2, 4, 4]
         const @running_var [2] = [8, 15]
         %0 = add_scalar(@running_var) scalar=1
         %1 = sqrt(%0)
         %2 = reshape(%1) shape=[1, 2, 1, 1]
         %3 = div(%x, %2)
         output %3",
        "graph \"\" batch=free
         input %x [1, 2, 4, 4]
         const @running_var [1, 2, 1, 1] = [3, 4]
         %0 = div(%x, @running_var)  # -> [1, 2, 4, 4]
         output %0",
    );
}

#[test]
fn a_transposed_weight_keeps_its_name() {
    check(
        "fold_constants",
        "input %x [1, 3]
         const @fc.weight [3, 2] = [1, 2, 3, 4, 5, 6]
         %0 = permute(@fc.weight) order=[1, 0]
         %1 = linear(%x, %0)
         output %1",
        "graph \"\" batch=free
         input %x [1, 3]
         const @fc.weight [2, 3] = [1, 3, 5, 2, 4, 6]
         %0 = linear(%x, @fc.weight)  # -> [1, 2]
         output %0",
    );
}

#[test]
fn what_training_drops_stays_when_a_network_runs() {
    check(
        "remove_identities",
        "input %x [1, 4, 8, 8]
         %0 = relu(%x)
         %1 = drop(%0) squares=3 rate=0.1
         %2 = drop(%1) images rate=0.2
         %3 = global_avg_pool(%2)
         %4 = reshape(%3) shape=[1, 4]
         %5 = drop(%4) rate=0.5
         %logits = softmax(%5)
         output %logits",
        "graph \"\" batch=free
         input %x [1, 4, 8, 8]
         %0 = relu(%x)  # -> [1, 4, 8, 8]
         %1 = global_avg_pool(%0)  # -> [1, 4, 1, 1]
         %2 = reshape(%1) shape=[1, 4]  # -> [1, 4]
         %logits = softmax(%2)  # -> [1, 4]
         output %logits",
    );
}

#[test]
fn identities_go_and_an_output_keeps_its_name() {
    check(
        "remove_identities",
        "input %x [1, 4, 1, 1]
         %0 = relu(%x)
         %1 = max_pool(%0) kernel=1
         %2 = global_avg_pool(%1)
         %3 = concat(%2)
         %4 = add_scalar(%3) scalar=0
         %5 = mul_scalar(%4) scalar=1
         %6 = slice_channels(%5) start=0 end=4
         %7 = leaky_relu(%6) slope=1
         %8 = pad(%7)
         %logits = reshape(%8) shape=[1, 4, 1, 1]
         output %logits",
        "graph \"\" batch=free
         input %x [1, 4, 1, 1]
         %logits = relu(%x)  # -> [1, 4, 1, 1]
         output %logits",
    );
}

#[test]
fn an_input_that_is_an_output_keeps_its_node() {
    check_stays(
        "remove_identities",
        "input %x [1, 4, 1, 1]
         %y = identity(%x)
         output %y",
        &[],
    );
}

#[test]
fn runs_are_joined() {
    check(
        "remove_identities",
        "input %x [1, 8, 2, 2]
         %0 = slice_channels(%x) start=2 end=8
         %1 = slice_channels(%0) start=1 end=3
         %2 = relu(%x)
         %3 = concat(%1, %2)
         %4 = concat(%3, %x)
         %5 = reshape(%4) shape=[1, 72]
         %6 = reshape(%5) shape=[1, 18, 4, 1]
         output %6",
        "graph \"\" batch=free
         input %x [1, 8, 2, 2]
         %0 = slice_channels(%x) start=3 end=5  # -> [1, 2, 2, 2]
         %1 = relu(%x)  # -> [1, 8, 2, 2]
         %2 = concat(%0, %1, %x)  # -> [1, 18, 2, 2]
         %3 = reshape(%2) shape=[1, 18, 4, 1]  # -> [1, 18, 4, 1]
         output %3",
    );
}

#[test]
fn a_concatenation_that_is_used_stays() {
    check_stays(
        "remove_identities",
        "input %x [1, 2, 2, 2]
         %0 = relu(%x)
         %1 = concat(%x, %0)
         %2 = exp(%1)
         %3 = concat(%1, %2)
         output %3",
        &[],
    );
}

#[test]
fn silu_is_recognised() {
    check(
        "recognise",
        "input %x [1, 4, 2, 2]
         %0 = neg(%x)
         %1 = exp(%0)
         %2 = add_scalar(%1) scalar=1
         %3 = recip(%2)
         %4 = mul(%3, %x)
         output %4",
        "graph \"\" batch=free
         input %x [1, 4, 2, 2]
         %0 = silu(%x)  # -> [1, 4, 2, 2]
         output %0",
    );
}

#[test]
fn hard_swish_is_recognised_in_three_spellings() {
    let recognised = "graph \"\" batch=free
         input %x [1, 4, 2, 2]
         %0 = hard_swish(%x)  # -> [1, 4, 2, 2]
         output %0";
    check(
        "recognise",
        "input %x [1, 4, 2, 2]
         %0 = mul_scalar(%x) scalar=0.16666667
         %1 = add_scalar(%0) scalar=0.5
         %2 = clamp(%1) low=0 high=1
         %3 = mul(%x, %2)
         output %3",
        recognised,
    );
    check(
        "recognise",
        "input %x [1, 4, 2, 2]
         %0 = add_scalar(%x) scalar=3
         %1 = clamp(%0) low=0 high=6
         %2 = mul(%x, %1)
         %3 = mul_scalar(%2) scalar=0.16666667
         output %3",
        recognised,
    );
    check(
        "recognise",
        "input %x [1, 4, 2, 2]
         %0 = add_scalar(%x) scalar=3
         %1 = relu6(%0)
         %2 = mul_scalar(%1) scalar=0.16666667
         %3 = mul(%2, %x)
         output %3",
        recognised,
    );
}

#[test]
fn clamps_are_activations() {
    check(
        "recognise",
        "input %x [1, 4, 2, 2]
         %0 = clamp(%x) low=0 high=inf
         %1 = clamp(%x) low=0 high=6
         %2 = clamp(%x) low=0 high=5
         %3 = concat(%0, %1, %2)
         output %3",
        "graph \"\" batch=free
         input %x [1, 4, 2, 2]
         %0 = relu(%x)  # -> [1, 4, 2, 2]
         %1 = relu6(%x)  # -> [1, 4, 2, 2]
         %2 = clamp(%x) low=0 high=5  # -> [1, 4, 2, 2]
         %3 = concat(%0, %1, %2)  # -> [1, 12, 2, 2]
         output %3",
    );
}

#[test]
fn a_map_times_a_sigmoid_is_a_gate() {
    check(
        "recognise",
        "input %x [1, 4, 2, 2]
         input %logits [1, 4, 1, 1]
         %0 = sigmoid(%logits)
         %1 = mul(%0, %x)
         output %1",
        "graph \"\" batch=free
         input %x [1, 4, 2, 2]
         input %logits [1, 4, 1, 1]
         %0 = gate(%x, %logits)  # -> [1, 4, 2, 2]
         output %0",
    );
}

#[test]
fn a_gate_is_seen_behind_a_reshape() {
    check(
        "recognise",
        "input %x [1, 4, 2, 2]
         input %logits [1, 4]
         %0 = hard_sigmoid(%logits)
         %1 = reshape(%0) shape=[1, 4, 1, 1]
         %2 = mul(%x, %1)
         output %2",
        "graph \"\" batch=free
         input %x [1, 4, 2, 2]
         input %logits [1, 4]
         %0 = reshape(%logits) shape=[1, 4, 1, 1]  # -> [1, 4, 1, 1]
         %1 = gate(%x, %0) hard  # -> [1, 4, 2, 2]
         output %1",
    );
}

#[test]
fn a_product_of_maps_is_no_gate() {
    check_stays(
        "recognise",
        "input %x [1, 4, 2, 2]
         input %y [1, 4, 2, 2]
         %0 = sigmoid(%y)
         %1 = mul(%x, %0)
         output %1",
        &[],
    );
}

#[test]
fn a_mean_over_everything_is_global() {
    check(
        "recognise",
        "input %x [1, 4, 3, 2]
         %0 = avg_pool(%x) kernel=[3, 2]
         %1 = radix_pool(%x) radix=1
         %2 = split_attention(%x, %1) radix=1
         %3 = add(%2, %0)
         output %3",
        "graph \"\" batch=free
         input %x [1, 4, 3, 2]
         %0 = global_avg_pool(%x)  # -> [1, 4, 1, 1]
         %1 = global_avg_pool(%x)  # -> [1, 4, 1, 1]
         %2 = gate(%x, %1)  # -> [1, 4, 3, 2]
         %3 = add(%2, %0)  # -> [1, 4, 3, 2]
         output %3",
    );
}

#[test]
fn zeros_become_padding() {
    check(
        "merge_pads",
        "input %x [1, 3, 5, 5]
         const @w [2, 3, 3, 3]
         %0 = pad(%x) padding=[0, 1, 2, 1]
         %1 = conv2d(%0, @w) padding=1
         %2 = pad(%x) padding=1
         %3 = avg_pool(%2) kernel=3 stride=2
         output %1
         output %3",
        "graph \"\" batch=free
         input %x [1, 3, 5, 5]
         const @w [2, 3, 3, 3]
         %0 = conv2d(%x, @w) padding=[1, 2, 3, 2]  # -> [1, 2, 7, 7]
         %1 = avg_pool(%x) kernel=3 stride=2 padding=1 count_padding  # -> [1, 3, 3, 3]
         output %0
         output %1",
    );
}

#[test]
fn zeros_that_are_not_padding_stay() {
    check_stays(
        "merge_pads",
        "input %x [1, 3, 5, 5]
         %0 = pad(%x) padding=1
         %1 = max_pool(%0) kernel=3 stride=2
         %2 = avg_pool(%0) kernel=2 stride=2 ceil
         %3 = avg_pool(%0) kernel=3 padding=1
         %4 = pad(%x) padding=3
         %5 = avg_pool(%4) kernel=3
         output %1
         output %2
         output %3
         output %5",
        &[
            "merge_pads: max_pool stays: the zeros before it are candidates for the maximum, padding is not",
            "merge_pads: avg_pool stays: which last windows it keeps depends on what is padding",
            "merge_pads: avg_pool stays: the zeros before it count in its mean, its own padding does not",
            "merge_pads: avg_pool stays: padding may be half of a window at most",
        ],
    );
}
