//! Passes that put one operator into another, or two in another order.

use crate::check::{check, check_stays, conv, run};

#[test]
fn an_activation_goes_into_what_computes_its_input() {
    check(
        "fuse_activations",
        "input %x [1, 8, 4, 4]
         const @conv.weight [8, 4, 3, 3]
         const @fc.weight [4, 8]
         %0 = conv2d(%x, @conv.weight) groups=2 # conv
         %1 = silu(%0)
         %2 = global_avg_pool(%1)
         %3 = split_attention(%x, %2) radix=2
         %4 = relu6(%3)
         %5 = reshape(%2) shape=[1, 8]
         %6 = linear(%5, @fc.weight) # fc
         %7 = leaky_relu(%6) slope=0.5
         %8 = reshape(%7) shape=[1, 4, 1, 1]
         %9 = gate(%4, %8)
         %10 = relu(%9)
         output %10",
        "graph \"\" batch=free
         input %x [1, 8, 4, 4]
         const @conv.weight [8, 4, 3, 3]
         const @fc.weight [4, 8]
         %0 = conv2d(%x, @conv.weight) groups=2 activation=silu  # conv -> [1, 8, 2, 2]
         %1 = global_avg_pool(%0)  # -> [1, 8, 1, 1]
         %2 = split_attention(%x, %1) radix=2 activation=relu6  # -> [1, 4, 4, 4]
         %3 = reshape(%1) shape=[1, 8]  # -> [1, 8]
         %4 = linear(%3, @fc.weight) activation=leaky_relu(0.5)  # fc -> [1, 4]
         %5 = reshape(%4) shape=[1, 4, 1, 1]  # -> [1, 4, 1, 1]
         %6 = gate(%2, %5) activation=relu  # -> [1, 4, 4, 4]
         output %6",
    );
}

#[test]
fn an_activation_goes_into_all_parts_of_a_concatenation() {
    check(
        "fuse_activations",
        "input %x [1, 4, 4, 4]
         const @a.weight [4, 4, 1, 1]
         const @b.weight [6, 4, 1, 1]
         %0 = conv2d(%x, @a.weight) # a
         %1 = conv2d(%x, @b.weight) # b
         %2 = concat(%0, %1)
         %3 = silu(%2)
         output %3",
        "graph \"\" batch=free
         input %x [1, 4, 4, 4]
         const @a.weight [4, 4, 1, 1]
         const @b.weight [6, 4, 1, 1]
         %0 = conv2d(%x, @a.weight) activation=silu  # a -> [1, 4, 4, 4]
         %1 = conv2d(%x, @b.weight) activation=silu  # b -> [1, 6, 4, 4]
         %2 = concat(%0, %1)  # -> [1, 10, 4, 4]
         output %2",
    );
}

#[test]
fn activations_that_stay_say_why() {
    let text = "input %x [1, 4, 4, 4]\n".to_owned()
        + &conv("conv", [4, 4, 1, 1])
        + "%0 = relu(%x) # act0
           %1 = conv2d(%0, @conv.weight) # conv1
           %2 = relu(%1) # act1
           %3 = add(%1, %2)
           %4 = relu(%3) # act2
           %5 = conv2d(%4, @conv.weight) activation=silu # conv2
           %6 = relu(%5) # act3
           %7, %8 = conv2d(%6, @conv.weight) pool=1 # conv3
           %9 = relu(%7) # act4
           %10 = gate(%9, %8)
           %11 = conv2d(%10, @conv.weight) # conv4
           %12 = relu(%11) # act5
           output %11
           output %12";
    check_stays(
        "fuse_activations",
        &text,
        &[
            "fuse_activations: act0 (relu) stays: its input is given, not computed",
            "fuse_activations: act1 (relu) stays: the result of conv1 (conv2d) is used elsewhere too",
            "fuse_activations: act2 (relu) stays: add before it applies no activations",
            "fuse_activations: act3 (relu) stays: conv2 (conv2d) has an activation of its own",
            "fuse_activations: act4 (relu) stays: conv3 (conv2d) has its mean taken before it",
            "fuse_activations: act5 (relu) stays: the result of conv4 (conv2d) is also an output of the graph",
        ],
    );
}

#[test]
fn the_later_convolution_takes_the_residual() {
    let text = "input %x [1, 4, 4, 4]\n".to_owned()
        + &conv("conv", [4, 4, 1, 1])
        + &conv("downsample", [4, 4, 1, 1])
        + "%0 = conv2d(%x, @conv.weight) # conv
           %1 = conv2d(%x, @downsample.weight) # downsample
           %2 = add(%0, %1)
           output %2";
    check(
        "fuse_residuals",
        &text,
        "graph \"\" batch=free
         input %x [1, 4, 4, 4]
         const @conv.weight [4, 4, 1, 1]
         const @downsample.weight [4, 4, 1, 1]
         %0 = conv2d(%x, @conv.weight)  # conv -> [1, 4, 4, 4]
         %1 = conv2d(%x, @downsample.weight, residual=%0)  # downsample -> [1, 4, 4, 4]
         output %1",
    );
}

#[test]
fn a_convolution_waits_for_its_residual() {
    let text = "input %x [1, 4, 4, 4]\n".to_owned()
        + &conv("conv", [4, 4, 1, 1])
        + "%0 = conv2d(%x, @conv.weight) # conv
           %1 = max_pool(%x) kernel=3 padding=1
           %2 = add(%1, %0)
           output %2";
    check(
        "fuse_residuals",
        &text,
        "graph \"\" batch=free
         input %x [1, 4, 4, 4]
         const @conv.weight [4, 4, 1, 1]
         %0 = max_pool(%x) kernel=3 padding=1  # -> [1, 4, 4, 4]
         %1 = conv2d(%x, @conv.weight, residual=%0)  # conv -> [1, 4, 4, 4]
         output %1",
    );
}

#[test]
fn a_gate_takes_a_residual() {
    check(
        "fuse_residuals",
        "input %x [1, 4, 4, 4]
         %0 = global_avg_pool(%x)
         %1 = gate(%x, %0) hard # se
         %2 = add(%1, %x)
         output %2",
        "graph \"\" batch=free
         input %x [1, 4, 4, 4]
         %0 = global_avg_pool(%x)  # -> [1, 4, 1, 1]
         %1 = gate(%x, %0, residual=%x) hard  # se -> [1, 4, 4, 4]
         output %1",
    );
}

#[test]
fn sums_that_stay_say_why() {
    let text = "input %x [1, 4, 4, 4]\n".to_owned()
        + &conv("conv", [4, 4, 1, 1])
        + "const @map [1, 4, 4, 4]
           %0 = add(%x, @map) # constant
           %1 = conv2d(%0, @conv.weight) activation=relu # conv1
           %2 = conv2d(%1, @conv.weight) # conv2
           %3 = relu(%2)
           %4 = add(%1, %3) # sum1
           %5 = add(%2, %4) # sum2
           %6, %7 = conv2d(%5, @conv.weight) pool=1 # conv3
           %8 = add(%6, %x) # sum3
           %9 = conv2d(%8, @conv.weight, residual=%x) # conv4
           %10 = add(%9, %x) # sum4
           output %10";
    check_stays(
        "fuse_residuals",
        &text,
        &[
            "fuse_residuals: sum1 (add) stays: relu adds no residuals; the result of conv1 (conv2d) is used elsewhere too",
            "fuse_residuals: sum2 (add) stays: sum1 (add) adds no residuals; the result of conv2 (conv2d) is used elsewhere too",
            "fuse_residuals: sum3 (add) stays: conv3 (conv2d) has its mean taken before the sum; its input is given, not computed",
            "fuse_residuals: sum4 (add) stays: conv4 (conv2d) has a residual already; its input is given, not computed",
        ],
    );
}

#[test]
fn a_mean_is_the_convolutions_second_output() {
    let text = "input %x [1, 4, 4, 4]\n".to_owned()
        + &conv("conv1", [8, 4, 1, 1])
        + &conv("conv2", [6, 4, 1, 1])
        + "%0 = conv2d(%x, @conv1.weight) activation=relu # conv1
           %1 = radix_pool(%0) radix=2
           %2 = conv2d(%1, @conv1.weight) # fc
           %3 = split_attention(%0, %2) radix=2
           %4 = conv2d(%3, @conv2.weight) # conv2
           %5 = global_avg_pool(%4)
           output %5";
    check(
        "fuse_pools",
        &text,
        "graph \"\" batch=free
         input %x [1, 4, 4, 4]
         const @conv1.weight [8, 4, 1, 1]
         const @conv2.weight [6, 4, 1, 1]
         %0, %1 = conv2d(%x, @conv1.weight) activation=relu pool=2  # conv1 -> [1, 8, 4, 4], [1, 4, 1, 1]
         %2 = conv2d(%1, @conv1.weight)  # fc -> [1, 8, 1, 1]
         %3 = split_attention(%0, %2) radix=2  # -> [1, 4, 4, 4]
         %4, %5 = conv2d(%3, @conv2.weight) pool=1  # conv2 -> [1, 6, 4, 4], [1, 6, 1, 1]
         output %5",
    );
}

#[test]
fn means_that_stay_say_why() {
    let text = "input %x [1, 4, 4, 4]\n".to_owned()
        + &conv("conv", [4, 4, 1, 1])
        + "%0 = global_avg_pool(%x) # pool0
           %1 = blur_pool(%x) # blur
           %2 = global_avg_pool(%1) # pool1
           %3, %4 = conv2d(%x, @conv.weight) pool=1 # conv
           %5 = radix_pool(%3) radix=2 # pool2
           output %0
           output %2
           output %4
           output %5";
    check_stays(
        "fuse_pools",
        &text,
        &[
            "fuse_pools: pool0 (global_avg_pool) stays: its input is given, not computed",
            "fuse_pools: pool1 (global_avg_pool) stays: blur (blur_pool) before it takes no means",
            "fuse_pools: pool2 (radix_pool) stays: conv (conv2d) has its mean taken already",
        ],
    );
}

#[test]
fn a_mean_comes_before_a_pointwise_convolution() {
    let text = "input %x [1, 4, 4, 4]
         const @conv.weight [4, 4, 1, 1]
         const @conv.bias [4]
         %0 = conv2d(%x, @conv.weight, bias=@conv.bias) # conv1
         %1 = avg_pool(%0) kernel=2 stride=2 # down
         %2 = conv2d(%1, @conv.weight, bias=@conv.bias) # conv2
         %3 = blur_pool(%2) # blur
         %4 = conv2d(%3, @conv.weight, bias=@conv.bias) # conv3
         %5 = reshape(%4) shape=[1, 4, 1, 1]
         output %5";
    check(
        "commute",
        text,
        "graph \"\" batch=free
         input %x [1, 4, 4, 4]
         const @conv.weight [4, 4, 1, 1]
         const @conv.bias [4]
         %0 = avg_pool(%x) kernel=2 stride=2  # down -> [1, 4, 2, 2]
         %1 = conv2d(%0, @conv.weight, bias=@conv.bias)  # conv1 -> [1, 4, 2, 2]
         %2 = blur_pool(%1)  # blur -> [1, 4, 1, 1]
         %3 = conv2d(%2, @conv.weight, bias=@conv.bias)  # conv2 -> [1, 4, 1, 1]
         %4 = conv2d(%3, @conv.weight, bias=@conv.bias)  # conv3 -> [1, 4, 1, 1]
         %5 = reshape(%4) shape=[1, 4, 1, 1]  # -> [1, 4, 1, 1]
         output %5",
    );
    let global = text.replace("blur_pool(%2) # blur", "global_avg_pool(%2) # pool");
    assert!(run("commute", &global).0.contains("%2 = global_avg_pool(%1)"));
}

#[test]
fn an_increasing_activation_comes_before_a_maximum() {
    let text = |activation: &str| {
        format!(
            "input %x [1, 4, 4, 4]
             const @conv.weight [4, 4, 1, 1]
             %0 = conv2d(%x, @conv.weight) # conv
             %1 = max_pool(%0) kernel=3 stride=2 padding=1 # pool
             %2 = {activation}(%1) # act
             output %2"
        )
    };
    check(
        "commute",
        &text("relu"),
        "graph \"\" batch=free
         input %x [1, 4, 4, 4]
         const @conv.weight [4, 4, 1, 1]
         %0 = conv2d(%x, @conv.weight)  # conv -> [1, 4, 4, 4]
         %1 = relu(%0)  # act -> [1, 4, 4, 4]
         %2 = max_pool(%1) kernel=3 stride=2 padding=1  # pool -> [1, 4, 2, 2]
         output %2",
    );
    check_stays("commute", &text("silu"), &[]);
}

#[test]
fn means_that_stay_after_a_convolution_say_why() {
    let text = "input %x [1, 4, 16, 16]\n".to_owned()
        + &conv("conv1", [4, 4, 1, 1])
        + &conv("conv3", [4, 4, 3, 3])
        + "const @bias [4]
           %0 = conv2d(%x, @conv3.weight) padding=1 activation=relu # conv1
           %1 = blur_pool(%0) # blur1
           %2 = conv2d(%1, @conv3.weight) padding=1 # conv2
           %3 = blur_pool(%2) # blur2
           %4 = conv2d(%3, @conv1.weight, bias=@bias) # conv3
           %5 = avg_pool(%4) kernel=3 padding=1 count_padding stride=2 # pool3
           %6 = conv2d(%5, @conv1.weight) # conv4
           %7 = avg_pool(%6) kernel=3 padding=1 # pool4
           %8 = conv2d(%7, @conv1.weight, residual=%7) # conv5
           %9 = avg_pool(%8) kernel=2 # pool5
           output %9";
    check_stays(
        "commute",
        &text,
        &[
            "commute: blur1 (blur_pool) stays: activation between it and conv1 (conv2d)",
            "commute: blur2 (blur_pool) stays: conv2 (conv2d) and its border do not commute",
            "commute: pool3 (avg_pool) stays: zeros in its mean, which would get a bias",
            "commute: pool4 (avg_pool) stays: it would save nothing: it leaves as many pixels",
            "commute: pool5 (avg_pool) stays: conv5 (conv2d) does more than convolve",
        ],
    );
}
