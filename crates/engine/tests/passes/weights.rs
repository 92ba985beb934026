//! Passes that change weights.

use crate::check::{activated_norm, check, check_stays, conv, conv_bias, norm, run};

#[test]
fn a_norm_goes_into_the_convolution_before_it() {
    let text = "input %x [1, 3, 5, 5]\n".to_owned()
        + &conv("conv1", [24, 3, 3, 3])
        + &norm("bn1", 24)
        + "%0 = conv2d(%x, @conv1.weight) padding=1 # conv1\n"
        + &activated_norm("%1", "%0", "bn1", 0.0)
        + "output %1";
    check(
        "fold_norms",
        &text,
        "graph \"\" batch=free
         input %x [1, 3, 5, 5]
         const @conv1.weight [24, 3, 3, 3]
         const @conv1.bias [24]
         %0 = conv2d(%x, @conv1.weight, bias=@conv1.bias) padding=1 activation=relu  # conv1 -> [1, 24, 5, 5]
         output %0",
    );
}

#[test]
fn the_numbers_of_a_folded_norm() {
    // scale = 3 / sqrt(3 + 1) = 1.5; shift = 2 - 1.5 * 4 = -4
    check(
        "fold_norms",
        "input %x [1, 1, 2, 2]
         const @conv.weight [1, 1, 1, 1] = [10]
         const @conv.bias [1] = [6]
         const @bn.weight [1] = [3]
         const @bn.bias [1] = [2]
         const @bn.mean [1] = [4]
         const @bn.var [1] = [3]
         %0 = conv2d(%x, @conv.weight, bias=@conv.bias) # conv
         %1 = activated_norm(%0, @bn.weight, @bn.bias, @bn.mean, @bn.var) epsilon=1 slope=0.25
         output %1",
        "graph \"\" batch=free
         input %x [1, 1, 2, 2]
         const @conv.weight [1, 1, 1, 1] = [15]
         const @conv.bias [1] = [5]
         %0 = conv2d(%x, @conv.weight, bias=@conv.bias) activation=leaky_relu(0.25)  # conv -> [1, 1, 2, 2]
         output %0",
    );
}

#[test]
fn arithmetic_per_channel_is_folded_at_once() {
    // ((x w - 1) / 2) * 6 + 5 = 3 w x + 2
    check(
        "fold_norms",
        "input %x [1, 2]
         const @fc.weight [2, 2] = [1, 2, 3, 4]
         const @mean [1, 2] = [1, 2]
         const @gamma [1, 1] = [6]
         %0 = linear(%x, @fc.weight) # fc
         %1 = sub(%0, @mean)
         %2 = mul_scalar(%1) scalar=0.5
         %3 = mul(@gamma, %2)
         %4 = add_scalar(%3) scalar=5
         output %4",
        "graph \"\" batch=free
         input %x [1, 2]
         const @fc.weight [2, 2] = [3, 6, 9, 12]
         const @fc.bias [2] = [2, -1]
         %0 = linear(%x, @fc.weight, bias=@fc.bias)  # fc -> [1, 2]
         output %0",
    );
}

#[test]
fn a_norm_after_a_concatenation_of_convolutions_is_split() {
    let text = "input %x [1, 20, 5, 5]\n".to_owned()
        + &conv("conv.0", [20, 20, 1, 1])
        + &conv_bias("conv.1", [30, 20, 3, 3])
        + &norm("bn", 50)
        + "%0 = conv2d(%x, @conv.0.weight) # conv.0
           %1 = conv2d(%x, @conv.1.weight, bias=@conv.1.bias) padding=1 # conv.1
           %2 = concat(%0, %1)\n"
        + &activated_norm("%3", "%2", "bn", 1.0)
        + "output %3";
    check(
        "fold_norms",
        &text,
        "graph \"\" batch=free
         input %x [1, 20, 5, 5]
         const @conv.0.weight [20, 20, 1, 1]
         const @conv.0.bias [20]
         const @conv.1.weight [30, 20, 3, 3]
         const @conv.1.bias [30]
         %0 = conv2d(%x, @conv.0.weight, bias=@conv.0.bias)  # conv.0 -> [1, 20, 5, 5]
         %1 = conv2d(%x, @conv.1.weight, bias=@conv.1.bias) padding=1  # conv.1 -> [1, 30, 5, 5]
         %2 = concat(%0, %1)  # -> [1, 50, 5, 5]
         output %2",
    );
}

#[test]
fn a_shared_weight_is_scaled_for_each_of_its_users() {
    let text = "input %x [1, 20, 3, 3]\n".to_owned()
        + &conv("conv", [20, 20, 1, 1])
        + &norm("bn1", 20)
        + &norm("bn2", 20)
        + "%0 = conv2d(%x, @conv.weight) # a\n"
        + &activated_norm("%1", "%0", "bn1", 0.0)
        + "%2 = conv2d(%1, @conv.weight) # b\n"
        + &activated_norm("%3", "%2", "bn2", 0.0)
        + "output %3";
    check(
        "fold_norms",
        &text,
        "graph \"\" batch=free
         input %x [1, 20, 3, 3]
         const @conv.weight [20, 20, 1, 1]
         const @conv.bias [20]
         const @conv.weight.2 [20, 20, 1, 1]
         const @conv.bias.2 [20]
         %0 = conv2d(%x, @conv.weight, bias=@conv.bias) activation=relu  # a -> [1, 20, 3, 3]
         %1 = conv2d(%0, @conv.weight.2, bias=@conv.bias.2) activation=relu  # b -> [1, 20, 3, 3]
         output %1",
    );
}

#[test]
fn norms_that_cannot_be_folded_say_why() {
    let text = "input %x [1, 20, 3, 3]\n".to_owned()
        + &conv("conv", [20, 20, 1, 1])
        + &norm("bn1", 20)
        + &norm("bn2", 20)
        + &norm("bn3", 20)
        + &activated_norm("%0", "%x", "bn1", 0.0)
        + "%1 = conv2d(%0, @conv.weight) activation=relu # conv1\n"
        + &activated_norm("%2", "%1", "bn2", 0.0)
        + "%3 = conv2d(%2, @conv.weight) # conv2\n"
        + &activated_norm("%4", "%3", "bn3", 0.0)
        + "%5 = add(%3, %4)
           output %5";
    check_stays(
        "fold_norms",
        &text,
        &[
            "fold_norms: bn1 (activated_norm) stays: its input is given, not computed",
            "fold_norms: bn2 (activated_norm) stays: conv1 (conv2d) has an activation",
            "fold_norms: bn3 (activated_norm) stays: the result of conv2 (conv2d) is used elsewhere too",
        ],
    );
}

#[test]
fn arithmetic_without_a_convolution_becomes_a_norm() {
    check(
        "fold_norms",
        "input %x [1, 2, 3, 3]
         const @mean [1, 2, 1, 1] = [1, 2]
         const @std [1, 2, 1, 1] = [0.5, 0.25]
         %0 = sub(%x, @mean)
         %1 = div(%0, @std) # normalise
         output %1",
        "graph \"\" batch=free
         input %x [1, 2, 3, 3]
         const @normalise.weight [2] = [2, 4]
         const @normalise.bias [2] = [-2, -8]
         const @normalise.running_mean [2] = 0
         const @normalise.running_var [2] = 1
         %0 = activated_norm(%x, @normalise.weight, @normalise.bias, @normalise.running_mean, @normalise.running_var) epsilon=0  # normalise -> [1, 2, 3, 3]
         output %0",
    );
}

#[test]
fn a_scale_goes_into_the_convolution_after_it() {
    check(
        "fold_scales",
        "input %x [1, 4, 2, 2]
         const @conv.weight [2, 2, 1, 1] = [1, 2, 3, 4]
         const @scale [1, 4, 1, 1] = [1, 10, 100, 1000]
         const @shift [1, 4, 1, 1] = [4, 3, 2, 1]
         %0 = mul(%x, @scale)
         %1 = add(%0, @shift)
         %2 = conv2d(%1, @conv.weight) groups=2 activation=relu # conv
         output %2",
        "graph \"\" batch=free
         input %x [1, 4, 2, 2]
         const @conv.weight [2, 2, 1, 1] = [1, 20, 300, 4000]
         const @conv.bias [2] = 10
         %0 = conv2d(%x, @conv.weight, bias=@conv.bias) groups=2 activation=relu  # conv -> [1, 2, 2, 2]
         output %0",
    );
}

#[test]
fn padding_keeps_a_shift_out() {
    let text = |op: &str| {
        format!(
            "input %x [1, 3, 5, 5]
             const @conv.weight [20, 3, 3, 3]
             const @vector [1, 3, 1, 1] = [1, 2, 3]
             %0 = {op}(%x, @vector) # normalise
             %1 = conv2d(%0, @conv.weight) padding=1 # conv
             output %1"
        )
    };
    check_stays(
        "fold_scales",
        &text("sub"),
        &["fold_scales: normalise (sub) stays: conv (conv2d) pads with zeros, which its shift would change"],
    );
    let (after, missed) = run("fold_scales", &text("div"));
    assert_eq!((after.contains("div"), missed), (false, vec![]));
}

#[test]
fn space_to_depth_is_a_larger_kernel() {
    check(
        "fold_stem",
        "input %x [1, 3, 12, 8]
         const @conv1.weight [20, 12, 3, 3]
         %0 = space_to_depth(%x) block=2
         %1 = conv2d(%0, @conv1.weight) stride=[2, 1] padding=[1, 2, 0, 1] # conv1
         output %1",
        "graph \"\" batch=free
         input %x [1, 3, 12, 8]
         const @conv1.weight [20, 3, 6, 6]
         %0 = conv2d(%x, @conv1.weight) stride=[4, 2] padding=[2, 4, 0, 2]  # conv1 -> [1, 20, 3, 5]
         output %0",
    );
}

#[test]
fn space_to_depth_before_groups_stays() {
    check_stays(
        "fold_stem",
        "input %x [1, 3, 12, 8]
         const @conv1.weight [20, 6, 3, 3]
         %0 = space_to_depth(%x) block=2
         %1 = conv2d(%0, @conv1.weight) groups=2 # conv1
         output %1",
        &[
            "fold_stem: conv1 (conv2d) stays: its groups of channels are rows and columns of the image before space-to-depth",
        ],
    );
}

#[test]
fn a_linear_layer_on_a_map_is_a_convolution() {
    check(
        "flatten",
        "input %x [1, 5, 3, 2]
         const @fc.weight [4, 30]
         const @fc.bias [4]
         %0 = reshape(%x) shape=[1, 30]
         %logits = linear(%0, @fc.weight, bias=@fc.bias) activation=relu # fc
         output %logits",
        "graph \"\" batch=free
         input %x [1, 5, 3, 2]
         const @fc.weight [4, 5, 3, 2]
         const @fc.bias [4]
         %0 = conv2d(%x, @fc.weight, bias=@fc.bias) activation=relu  # fc -> [1, 4, 1, 1]
         %logits = reshape(%0) shape=[1, 4]  # fc -> [1, 4]
         output %logits",
    );
}

#[test]
fn a_linear_layer_on_one_pixel_stays() {
    let text = "input %x [1, 30, 1, 1]
         const @fc.weight [4, 30]
         %0 = reshape(%x) shape=[1, 30]
         %1 = linear(%0, @fc.weight) # fc
         output %1";
    check_stays("flatten", text, &[]);
}
