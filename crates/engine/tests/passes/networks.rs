//! Excerpts of networks, as they are captured, through all passes.

use crate::check::{activated_norm, check_network, conv, conv_bias, norm};

/// A text: an input of `input` sizes, then the parts.
fn network(input: [usize; 4], parts: &[&str]) -> String {
    format!("input %x {input:?}\n{}", parts.concat())
}

/// A convolution's weight and its norm's parameters.
fn conv_norm(conv_name: &str, shape: [usize; 4], norm_name: &str) -> String {
    conv(conv_name, shape) + &norm(norm_name, shape[0])
}

#[test]
fn resnet_bottleneck_with_a_projection() {
    let text = network(
        [1, 16, 6, 6],
        &[
            &conv_norm("conv1", [8, 16, 1, 1], "bn1"),
            &conv_norm("conv2", [8, 8, 3, 3], "bn2"),
            &conv_norm("conv3", [32, 8, 1, 1], "bn3"),
            &conv_norm("downsample.1", [32, 16, 1, 1], "downsample.2"),
            "%0 = conv2d(%x, @conv1.weight) # conv1\n",
            &activated_norm("%1", "%0", "bn1", 0.0),
            "%2 = conv2d(%1, @conv2.weight) stride=2 padding=1 # conv2\n",
            &activated_norm("%3", "%2", "bn2", 0.0),
            "%4 = conv2d(%3, @conv3.weight) # conv3\n",
            &activated_norm("%5", "%4", "bn3", 1.0),
            "%6 = avg_pool(%x) kernel=2 stride=2 ceil # downsample.0
             %7 = conv2d(%6, @downsample.1.weight) # downsample.1\n",
            &activated_norm("%8", "%7", "downsample.2", 1.0),
            "%9 = add(%5, %8)
             %10 = relu(%9)
             output %10",
        ],
    );
    check_network(&text, "%0 = conv2d(%x, @conv1.weight, bias=@conv1.bias) activation=relu  # conv1 -> [1, 8, 6, 6]
         %1 = conv2d(%0, @conv2.weight, bias=@conv2.bias) stride=2 padding=1 activation=relu  # conv2 -> [1, 8, 3, 3]
         %2 = conv2d(%1, @conv3.weight, bias=@conv3.bias)  # conv3 -> [1, 32, 3, 3]
         %3 = avg_pool(%x) kernel=2 stride=2 ceil  # downsample.0 -> [1, 16, 3, 3]
         %4 = conv2d(%3, @downsample.1.weight, bias=@downsample.1.bias, residual=%2) activation=relu  # downsample.1 -> [1, 32, 3, 3]
         output %4", &[]);
}

#[test]
fn resnest_bottleneck_with_a_pool_after_the_attention() {
    let text = network(
        [1, 32, 6, 6],
        &[
            &conv_norm("conv1", [8, 32, 1, 1], "bn1"),
            &conv_norm("conv2.conv", [16, 4, 3, 3], "conv2.bn0"),
            &conv_bias("conv2.fc1", [32, 8, 1, 1]),
            &norm("conv2.bn1", 32),
            &conv_bias("conv2.fc2", [16, 32, 1, 1]),
            &conv_norm("conv3", [32, 8, 1, 1], "bn3"),
            "%0 = conv2d(%x, @conv1.weight) # conv1\n",
            &activated_norm("%1", "%0", "bn1", 0.0),
            "%2 = conv2d(%1, @conv2.conv.weight) padding=1 groups=2 # conv2.conv\n",
            &activated_norm("%3", "%2", "conv2.bn0", 0.0),
            "%4 = radix_pool(%3) radix=2 # conv2
             %5 = conv2d(%4, @conv2.fc1.weight, bias=@conv2.fc1.bias) # conv2.fc1\n",
            &activated_norm("%6", "%5", "conv2.bn1", 0.0),
            "%7 = conv2d(%6, @conv2.fc2.weight, bias=@conv2.fc2.bias) # conv2.fc2
             %8 = split_attention(%3, %7) radix=2 # conv2
             %9 = avg_pool(%8) kernel=3 padding=1 count_padding # avd
             %10 = conv2d(%9, @conv3.weight) # conv3\n",
            &activated_norm("%11", "%10", "bn3", 1.0),
            "%12 = add(%11, %x)
             %13 = relu(%12)
             output %13",
        ],
    );
    check_network(&text, "%0 = conv2d(%x, @conv1.weight, bias=@conv1.bias) activation=relu  # conv1 -> [1, 8, 6, 6]
         %1, %2 = conv2d(%0, @conv2.conv.weight, bias=@conv2.conv.bias) padding=1 groups=2 activation=relu pool=2  # conv2.conv -> [1, 16, 6, 6], [1, 8, 1, 1]
         %3 = conv2d(%2, @conv2.fc1.weight, bias=@conv2.fc1.bias) activation=relu  # conv2.fc1 -> [1, 32, 1, 1]
         %4 = conv2d(%3, @conv2.fc2.weight, bias=@conv2.fc2.bias)  # conv2.fc2 -> [1, 16, 1, 1]
         %5 = split_attention(%1, %4) radix=2  # conv2 -> [1, 8, 6, 6]
         %6 = avg_pool(%5) kernel=3 padding=1 count_padding  # avd -> [1, 8, 6, 6]
         %7 = conv2d(%6, @conv3.weight, bias=@conv3.bias, residual=%x) activation=relu  # conv3 -> [1, 32, 6, 6]
         output %7", &[]);
}

#[test]
fn tresnet_stem_and_basic_block() {
    let text = network(
        [1, 3, 32, 32],
        &[
            &conv_norm("conv1.conv", [18, 48, 3, 3], "conv1.bn"),
            &conv_norm("layer1.0.conv1.conv", [18, 18, 3, 3], "layer1.0.conv1.bn"),
            &conv_norm("layer1.0.conv2.conv", [18, 18, 3, 3], "layer1.0.conv2.bn"),
            &conv_bias("layer1.0.se.fc1", [8, 18, 1, 1]),
            &conv_bias("layer1.0.se.fc2", [18, 8, 1, 1]),
            &conv_norm("layer1.0.downsample.1.conv", [18, 18, 1, 1], "layer1.0.downsample.1.bn"),
            "%0 = space_to_depth(%x) block=4
             %1 = conv2d(%0, @conv1.conv.weight) padding=1 # conv1.conv\n",
            &activated_norm("%2", "%1", "conv1.bn", 0.01),
            "%3 = conv2d(%2, @layer1.0.conv1.conv.weight) padding=1 # layer1.0.conv1.conv\n",
            &activated_norm("%4", "%3", "layer1.0.conv1.bn", 0.001),
            "%5 = blur_pool(%4) # layer1.0
             %6 = conv2d(%5, @layer1.0.conv2.conv.weight) padding=1 # layer1.0.conv2.conv\n",
            &activated_norm("%7", "%6", "layer1.0.conv2.bn", 1.0),
            "%8 = global_avg_pool(%7) # layer1.0.se
             %9 = conv2d(%8, @layer1.0.se.fc1.weight, bias=@layer1.0.se.fc1.bias) # layer1.0.se.fc1
             %10 = relu(%9) # layer1.0.se
             %11 = conv2d(%10, @layer1.0.se.fc2.weight, bias=@layer1.0.se.fc2.bias) # layer1.0.se.fc2
             %12 = gate(%7, %11) # layer1.0.se
             %13 = avg_pool(%2) kernel=2 stride=2 ceil # layer1.0.downsample.0
             %14 = conv2d(%13, @layer1.0.downsample.1.conv.weight) # layer1.0.downsample.1.conv\n",
            &activated_norm("%15", "%14", "layer1.0.downsample.1.bn", 1.0),
            "%16 = add(%12, %15) # layer1.0
             %17 = relu(%16) # layer1.0
             output %17",
        ],
    );
    check_network(&text, "%0 = conv2d(%x, @conv1.conv.weight, bias=@conv1.conv.bias) stride=4 padding=4 activation=leaky_relu(0.01)  # conv1.conv -> [1, 18, 8, 8]
         %1 = conv2d(%0, @layer1.0.conv1.conv.weight, bias=@layer1.0.conv1.conv.bias) padding=1 activation=leaky_relu(0.001)  # layer1.0.conv1.conv -> [1, 18, 8, 8]
         %2 = blur_pool(%1)  # layer1.0 -> [1, 18, 4, 4]
         %3, %4 = conv2d(%2, @layer1.0.conv2.conv.weight, bias=@layer1.0.conv2.conv.bias) padding=1 pool=1  # layer1.0.conv2.conv -> [1, 18, 4, 4], [1, 18, 1, 1]
         %5 = conv2d(%4, @layer1.0.se.fc1.weight, bias=@layer1.0.se.fc1.bias) activation=relu  # layer1.0.se.fc1 -> [1, 8, 1, 1]
         %6 = conv2d(%5, @layer1.0.se.fc2.weight, bias=@layer1.0.se.fc2.bias)  # layer1.0.se.fc2 -> [1, 18, 1, 1]
         %7 = gate(%3, %6)  # layer1.0.se -> [1, 18, 4, 4]
         %8 = avg_pool(%0) kernel=2 stride=2 ceil  # layer1.0.downsample.0 -> [1, 18, 4, 4]
         %9 = conv2d(%8, @layer1.0.downsample.1.conv.weight, bias=@layer1.0.downsample.1.conv.bias, residual=%7) activation=relu  # layer1.0.downsample.1.conv -> [1, 18, 4, 4]
         output %9", &[
            "commute: layer1.0 (blur_pool) stays: activation between it and layer1.0.conv1.conv (conv2d)",
        ]);
}

#[test]
fn tresnet_bottleneck() {
    let text = network(
        [1, 32, 8, 8],
        &[
            &conv_norm("conv1.conv", [8, 32, 1, 1], "conv1.bn"),
            &conv_norm("conv2.conv", [8, 8, 3, 3], "conv2.bn"),
            &conv_bias("se.fc1", [4, 8, 1, 1]),
            &conv_bias("se.fc2", [8, 4, 1, 1]),
            &conv_norm("conv3.conv", [32, 8, 1, 1], "conv3.bn"),
            "%0 = conv2d(%x, @conv1.conv.weight) # conv1.conv\n",
            &activated_norm("%1", "%0", "conv1.bn", 0.001),
            "%2 = conv2d(%1, @conv2.conv.weight) padding=1 # conv2.conv\n",
            &activated_norm("%3", "%2", "conv2.bn", 0.001),
            "%4 = blur_pool(%3) # blur
             %5 = global_avg_pool(%4) # se
             %6 = conv2d(%5, @se.fc1.weight, bias=@se.fc1.bias) # se.fc1
             %7 = relu(%6) # se
             %8 = conv2d(%7, @se.fc2.weight, bias=@se.fc2.bias) # se.fc2
             %9 = gate(%4, %8) # se
             %10 = conv2d(%9, @conv3.conv.weight) # conv3.conv\n",
            &activated_norm("%11", "%10", "conv3.bn", 1.0),
            "%12 = avg_pool(%x) kernel=2 stride=2 ceil # downsample.0
             %13 = add(%11, %12)
             %14 = relu(%13)
             output %14",
        ],
    );
    check_network(&text, "%0 = conv2d(%x, @conv1.conv.weight, bias=@conv1.conv.bias) activation=leaky_relu(0.001)  # conv1.conv -> [1, 8, 8, 8]
         %1 = conv2d(%0, @conv2.conv.weight, bias=@conv2.conv.bias) padding=1 activation=leaky_relu(0.001)  # conv2.conv -> [1, 8, 8, 8]
         %2 = blur_pool(%1)  # blur -> [1, 8, 4, 4]
         %3 = global_avg_pool(%2)  # se -> [1, 8, 1, 1]
         %4 = conv2d(%3, @se.fc1.weight, bias=@se.fc1.bias) activation=relu  # se.fc1 -> [1, 4, 1, 1]
         %5 = conv2d(%4, @se.fc2.weight, bias=@se.fc2.bias)  # se.fc2 -> [1, 8, 1, 1]
         %6 = gate(%2, %5)  # se -> [1, 8, 4, 4]
         %7 = avg_pool(%x) kernel=2 stride=2 ceil  # downsample.0 -> [1, 32, 4, 4]
         %8 = conv2d(%6, @conv3.conv.weight, bias=@conv3.conv.bias, residual=%7) activation=relu  # conv3.conv -> [1, 32, 4, 4]
         output %8", &[
            "commute: blur (blur_pool) stays: activation between it and conv2.conv (conv2d)",
            "fuse_pools: se (global_avg_pool) stays: blur (blur_pool) before it takes no means",
        ]);
}

#[test]
fn efficientnet_block() {
    let text = network(
        [1, 8, 6, 6],
        &[
            &conv_norm("conv_pw", [24, 8, 1, 1], "bn1"),
            &conv_norm("conv_dw", [24, 1, 5, 5], "bn2"),
            &conv_bias("se.conv_reduce", [2, 24, 1, 1]),
            &conv_bias("se.conv_expand", [24, 2, 1, 1]),
            &conv_norm("conv_pwl", [8, 24, 1, 1], "bn3"),
            "%0 = conv2d(%x, @conv_pw.weight) # conv_pw\n",
            &activated_norm("%1", "%0", "bn1", 1.0),
            "%2 = sigmoid(%1) # bn1
             %3 = mul(%1, %2) # bn1
             %4 = conv2d(%3, @conv_dw.weight) padding=2 groups=24 # conv_dw\n",
            &activated_norm("%5", "%4", "bn2", 1.0),
            "%6 = silu(%5) # bn2
             %7 = global_avg_pool(%6) # se
             %8 = conv2d(%7, @se.conv_reduce.weight, bias=@se.conv_reduce.bias) # se.conv_reduce
             %9 = silu(%8) # se
             %10 = conv2d(%9, @se.conv_expand.weight, bias=@se.conv_expand.bias) # se.conv_expand
             %11 = gate(%6, %10) # se
             %12 = conv2d(%11, @conv_pwl.weight) # conv_pwl\n",
            &activated_norm("%13", "%12", "bn3", 1.0),
            "%14 = add(%13, %x)
             output %14",
        ],
    );
    check_network(&text, "%0 = conv2d(%x, @conv_pw.weight, bias=@conv_pw.bias) activation=silu  # conv_pw -> [1, 24, 6, 6]
         %1, %2 = conv2d(%0, @conv_dw.weight, bias=@conv_dw.bias) padding=2 groups=24 activation=silu pool=1  # conv_dw -> [1, 24, 6, 6], [1, 24, 1, 1]
         %3 = conv2d(%2, @se.conv_reduce.weight, bias=@se.conv_reduce.bias) activation=silu  # se.conv_reduce -> [1, 2, 1, 1]
         %4 = conv2d(%3, @se.conv_expand.weight, bias=@se.conv_expand.bias)  # se.conv_expand -> [1, 24, 1, 1]
         %5 = gate(%1, %4)  # se -> [1, 24, 6, 6]
         %6 = conv2d(%5, @conv_pwl.weight, bias=@conv_pwl.bias, residual=%x)  # conv_pwl -> [1, 8, 6, 6]
         output %6", &[]);
}

#[test]
fn mixnet_depthwise_convolutions() {
    let text = network(
        [1, 20, 6, 6],
        &[
            &conv("conv_dw.0", [12, 1, 3, 3]),
            &conv("conv_dw.1", [8, 1, 5, 5]),
            &norm("bn2", 20),
            "%0 = slice_channels(%x) start=0 end=12 # conv_dw
             %1 = slice_channels(%x) start=12 end=20 # conv_dw
             %2 = conv2d(%0, @conv_dw.0.weight) padding=1 groups=12 # conv_dw.0
             %3 = conv2d(%1, @conv_dw.1.weight) padding=2 groups=8 # conv_dw.1
             %4 = concat(%2, %3) # conv_dw\n",
            &activated_norm("%5", "%4", "bn2", 1.0),
            "%6 = silu(%5) # bn2
             output %6",
        ],
    );
    check_network(&text, "%0 = slice_channels(%x) start=0 end=12  # conv_dw -> [1, 12, 6, 6]
         %1 = slice_channels(%x) start=12 end=20  # conv_dw -> [1, 8, 6, 6]
         %2 = conv2d(%0, @conv_dw.0.weight, bias=@conv_dw.0.bias) padding=1 groups=12 activation=silu  # conv_dw.0 -> [1, 12, 6, 6]
         %3 = conv2d(%1, @conv_dw.1.weight, bias=@conv_dw.1.bias) padding=2 groups=8 activation=silu  # conv_dw.1 -> [1, 8, 6, 6]
         %4 = concat(%2, %3)  # conv_dw -> [1, 20, 6, 6]
         output %4", &[]);
}

#[test]
fn regnet_block() {
    let text = network(
        [1, 24, 6, 6],
        &[
            &conv_norm("conv1.conv", [24, 24, 1, 1], "conv1.bn"),
            &conv_norm("conv2.conv", [24, 8, 3, 3], "conv2.bn"),
            &conv_bias("se.fc1", [6, 24, 1, 1]),
            &conv_bias("se.fc2", [24, 6, 1, 1]),
            &conv_norm("conv3.conv", [24, 24, 1, 1], "conv3.bn"),
            "%0 = conv2d(%x, @conv1.conv.weight) # conv1.conv\n",
            &activated_norm("%1", "%0", "conv1.bn", 0.0),
            "%2 = conv2d(%1, @conv2.conv.weight) padding=1 groups=3 # conv2.conv\n",
            &activated_norm("%3", "%2", "conv2.bn", 0.0),
            "%4 = global_avg_pool(%3) # se
             %5 = conv2d(%4, @se.fc1.weight, bias=@se.fc1.bias) # se.fc1
             %6 = relu(%5) # se
             %7 = conv2d(%6, @se.fc2.weight, bias=@se.fc2.bias) # se.fc2
             %8 = sigmoid(%7) # se
             %9 = mul(%3, %8) # se
             %10 = conv2d(%9, @conv3.conv.weight) # conv3.conv\n",
            &activated_norm("%11", "%10", "conv3.bn", 1.0),
            "%12 = add(%11, %x)
             %13 = relu(%12)
             output %13",
        ],
    );
    check_network(&text, "%0 = conv2d(%x, @conv1.conv.weight, bias=@conv1.conv.bias) activation=relu  # conv1.conv -> [1, 24, 6, 6]
         %1, %2 = conv2d(%0, @conv2.conv.weight, bias=@conv2.conv.bias) padding=1 groups=3 activation=relu pool=1  # conv2.conv -> [1, 24, 6, 6], [1, 24, 1, 1]
         %3 = conv2d(%2, @se.fc1.weight, bias=@se.fc1.bias) activation=relu  # se.fc1 -> [1, 6, 1, 1]
         %4 = conv2d(%3, @se.fc2.weight, bias=@se.fc2.bias)  # se.fc2 -> [1, 24, 1, 1]
         %5 = gate(%1, %4)  # se -> [1, 24, 6, 6]
         %6 = conv2d(%5, @conv3.conv.weight, bias=@conv3.conv.bias, residual=%x) activation=relu  # conv3.conv -> [1, 24, 6, 6]
         output %6", &[]);
}

#[test]
fn vgg() {
    let text = network(
        [1, 3, 8, 8],
        &[
            &conv_bias("features.0", [20, 3, 3, 3]),
            "const @classifier.0.weight [24, 320]
             const @classifier.0.bias [24]
             const @classifier.3.weight [10, 24]
             const @classifier.3.bias [10]
             %0 = conv2d(%x, @features.0.weight, bias=@features.0.bias) padding=1 # features.0
             %1 = clamp(%0) low=0 high=inf # features.1
             %2 = max_pool(%1) kernel=2 stride=2 # features.2
             %3 = reshape(%2) shape=[1, 320]
             %4 = linear(%3, @classifier.0.weight, bias=@classifier.0.bias) # classifier.0
             %5 = relu(%4) # classifier.1
             %logits = linear(%5, @classifier.3.weight, bias=@classifier.3.bias) # classifier.3
             output %logits",
        ],
    );
    check_network(&text, "%0 = conv2d(%x, @features.0.weight, bias=@features.0.bias) padding=1 activation=relu  # features.0 -> [1, 20, 8, 8]
         %1 = max_pool(%0) kernel=2 stride=2  # features.2 -> [1, 20, 4, 4]
         %2 = conv2d(%1, @classifier.0.weight, bias=@classifier.0.bias) activation=relu  # classifier.0 -> [1, 24, 1, 1]
         %3 = reshape(%2) shape=[1, 24]  # classifier.0 -> [1, 24]
         %logits = linear(%3, @classifier.3.weight, bias=@classifier.3.bias)  # classifier.3 -> [1, 10]
         output %logits", &[]);
}

#[test]
fn densenet_layers() {
    let text = network(
        [1, 20, 6, 6],
        &[
            &norm("norm1", 20),
            &conv_norm("conv1", [24, 20, 1, 1], "norm2"),
            &conv("conv2", [18, 24, 3, 3]),
            &norm("transition.norm", 38),
            &conv("transition.conv", [19, 38, 1, 1]),
            &activated_norm("%0", "%x", "norm1", 0.0),
            "%1 = conv2d(%0, @conv1.weight) # conv1\n",
            &activated_norm("%2", "%1", "norm2", 0.0),
            "%3 = conv2d(%2, @conv2.weight) padding=1 # conv2
             %4 = concat(%x, %3)\n",
            &activated_norm("%5", "%4", "transition.norm", 0.0),
            "%6 = conv2d(%5, @transition.conv.weight) # transition.conv
             %7 = avg_pool(%6) kernel=2 stride=2 # transition.pool
             output %7",
        ],
    );
    check_network(&text, "%0 = activated_norm(%x, @norm1.weight, @norm1.bias, @norm1.running_mean, @norm1.running_var) slope=0  # norm1 -> [1, 20, 6, 6]
         %1 = conv2d(%0, @conv1.weight, bias=@conv1.bias) activation=relu  # conv1 -> [1, 24, 6, 6]
         %2 = conv2d(%1, @conv2.weight) padding=1  # conv2 -> [1, 18, 6, 6]
         %3 = concat(%x, %2)  # -> [1, 38, 6, 6]
         %4 = activated_norm(%3, @transition.norm.weight, @transition.norm.bias, @transition.norm.running_mean, @transition.norm.running_var) slope=0  # transition.norm -> [1, 38, 6, 6]
         %5 = avg_pool(%4) kernel=2 stride=2  # transition.pool -> [1, 38, 3, 3]
         %6 = conv2d(%5, @transition.conv.weight)  # transition.conv -> [1, 19, 3, 3]
         output %6", &[
            "fold_norms: norm1 (activated_norm) stays: its input is given, not computed",
            "fold_norms: transition.norm (activated_norm) stays: of a part of the concatenation before it: its input is given, not computed",
        ]);
}

#[test]
fn preactivation_resnet_block() {
    let text = network(
        [1, 20, 6, 6],
        &[
            &norm("bn1", 20),
            &conv_norm("conv1", [20, 20, 3, 3], "bn2"),
            &conv("conv2", [20, 20, 3, 3]),
            &activated_norm("%0", "%x", "bn1", 0.0),
            "%1 = conv2d(%0, @conv1.weight) padding=1 # conv1\n",
            &activated_norm("%2", "%1", "bn2", 0.0),
            "%3 = conv2d(%2, @conv2.weight) padding=1 # conv2
             %4 = add(%3, %x)
             output %4",
        ],
    );
    check_network(&text, "%0 = activated_norm(%x, @bn1.weight, @bn1.bias, @bn1.running_mean, @bn1.running_var) slope=0  # bn1 -> [1, 20, 6, 6]
         %1 = conv2d(%0, @conv1.weight, bias=@conv1.bias) padding=1 activation=relu  # conv1 -> [1, 20, 6, 6]
         %2 = conv2d(%1, @conv2.weight, residual=%x) padding=1  # conv2 -> [1, 20, 6, 6]
         output %2", &[
            "fold_norms: bn1 (activated_norm) stays: its input is given, not computed",
        ]);
}

#[test]
fn the_arithmetic_of_a_plain_batch_norm() {
    let text = network(
        [1, 3, 6, 6],
        &[
            &conv_bias("conv", [20, 3, 3, 3]),
            "const @bn.gamma [20]
             const @bn.beta [20]
             const @bn.running_mean [20]
             const @bn.running_var [20]
             %0 = conv2d(%x, @conv.weight, bias=@conv.bias) padding=1 # conv
             %1 = reshape(@bn.running_mean) shape=[1, 20, 1, 1] # bn
             %2 = reshape(@bn.running_var) shape=[1, 20, 1, 1] # bn
             %3 = add_scalar(%2) scalar=0.00001 # bn
             %4 = sqrt(%3) # bn
             %5 = sub(%0, %1) # bn
             %6 = div(%5, %4) # bn
             %7 = reshape(@bn.gamma) shape=[1, 20, 1, 1] # bn
             %8 = mul(%6, %7) # bn
             %9 = reshape(@bn.beta) shape=[1, 20, 1, 1] # bn
             %10 = add(%8, %9) # bn
             %11 = relu(%10) # relu
             output %11",
        ],
    );
    check_network(
        &text,
        "%0 = conv2d(%x, @conv.weight, bias=@conv.bias) padding=1 activation=relu  # conv -> [1, 20, 6, 6]
         output %0",
        &[],
    );
}

#[test]
fn squeeze_and_excitation_with_linear_layers() {
    let text = network(
        [1, 20, 6, 6],
        &[
            &conv_bias("conv", [20, 20, 3, 3]),
            "const @fc1.weight [18, 20]
             const @fc2.weight [20, 18]
             %0 = conv2d(%x, @conv.weight, bias=@conv.bias) padding=1 # conv
             %1 = avg_pool(%0) kernel=6 # pool
             %2 = reshape(%1) shape=[1, 20]
             %3 = linear(%2, @fc1.weight) # fc1
             %4 = relu(%3)
             %5 = linear(%4, @fc2.weight) # fc2
             %6 = sigmoid(%5)
             %7 = reshape(%6) shape=[1, 20, 1, 1]
             %8 = mul(%0, %7)
             %9 = add(%8, %x)
             %10 = relu(%9)
             output %10",
        ],
    );
    check_network(&text, "%0, %1 = conv2d(%x, @conv.weight, bias=@conv.bias) padding=1 pool=1  # conv -> [1, 20, 6, 6], [1, 20, 1, 1]
         %2 = reshape(%1) shape=[1, 20]  # -> [1, 20]
         %3 = linear(%2, @fc1.weight) activation=relu  # fc1 -> [1, 18]
         %4 = linear(%3, @fc2.weight)  # fc2 -> [1, 20]
         %5 = reshape(%4) shape=[1, 20, 1, 1]  # -> [1, 20, 1, 1]
         %6 = gate(%0, %5, residual=%x) activation=relu  # -> [1, 20, 6, 6]
         output %6", &[]);
}
