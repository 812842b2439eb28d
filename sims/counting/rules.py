"""What each torch operator costs, by name: a rule takes (counting, args, kwargs, out) and tells what was done.

Conventions: a bias that a product begins with, conversions between types, views, copies, selections and random numbers are
free. One operation for each element unless said otherwise:

    mac            products with weights, of matrices, convolutions, recurrent layers, attention
    accumulate     sums: reductions, means, prefix sums, bags
    elementwise    add, multiply, shift
    transcendental exp, log, tanh, sqrt, division by a tensor and their like
    compare        relu, clamp, max, sorting (n log2 n) and top-k (n log2 k)

A softmax of n is n exponentials and a division, 2 n elementwise, n - 1 sums and comparisons; a normalisation of n two
passes of sums, 3 n elementwise, 2 n more with weights, and a square root.
"""

from __future__ import annotations

from typing import Any

from sims.counting import arithmetic, attention, movement, products, recurrent
from sims.counting.movement import Rule


def find(func: Any) -> Rule | None:
    """The rule of an operator; None: it has none of its own."""
    full = func.name().partition(".")[0]
    name = full.removeprefix("aten::")
    for known in (name, name.removesuffix("_")):
        if known in RULES:
            return RULES[known]
    return movement.keep if full.startswith("prim::") or _is_view(func) else None


def asks(func: Any) -> bool:
    """Whether an operator stands for several, of which torch chooses some when it runs."""
    return func.name().partition(".")[0].removeprefix("aten::") in _ASKS


def writes(func: Any) -> bool:
    """Whether an operator changes what it is given."""
    return bool(func._schema.is_mutable)


def aliases(func: Any) -> bool:
    """Whether an operator may give back what it was given, or a view of it."""
    return any(r.alias_info is not None for r in _returns(func))


def _returns(func: Any) -> list[Any]:
    return list(func._schema.returns) if hasattr(func, "_schema") else []


def _is_view(func: Any) -> bool:
    returns = _returns(func)
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


_ASKS = {"linear", "conv1d", "conv2d", "conv3d", "scaled_dot_product_attention", *recurrent.GATES}
RULES: dict[str, Rule] = {}
RULES |= dict.fromkeys(
    """empty empty_like empty_strided empty_permuted new_empty new_empty_strided zeros ones full zeros_like ones_like
    full_like new_zeros new_ones new_full arange linspace eye scalar_tensor rand randn randint rand_like randn_like
    randint_like randperm bernoulli normal uniform exponential random multinomial poisson fill zero tril_indices
    triu_indices _local_scalar_dense item is_nonzero is_same_size nonzero nonzero_numpy set resize resize_as_ size stride
    numel dim sym_size sym_numel sym_stride sym_storage_offset is_floating_point _assert_async _assert_scalar
    _functional_assert_async result_type can_cast promote_types is_pinned _has_same_storage_numel
    _cudnn_init_dropout_state _fused_sdp_choice
    one_hot is_complex _nested_tensor_from_mask_left_aligned
    lift hann_window record_stream q_scale q_zero_point""".split(),
    movement.free,
)
RULES |= dict.fromkeys(
    """view _unsafe_view reshape _reshape_alias permute transpose t numpy_T expand slice select unsqueeze squeeze unbind
    split split_with_sizes chunk detach alias clone _to_copy to contiguous lift_fresh as_strided flip roll repeat tile narrow
    unfold flatten unflatten movedim swapaxes swapdims view_as reshape_as expand_as diagonal repeat_interleave type_as
    im2col pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d tril triu
    _conj resolve_conj resolve_neg real unsafe_split unsafe_chunk diag diag_embed quantize_per_tensor
    quantize_per_tensor_dynamic dequantize int_repr meshgrid broadcast_tensors broadcast_to atleast_1d atleast_2d
    _nested_view_from_buffer positive""".split(),
    movement.keep,
)
RULES |= dict.fromkeys(["cat", "stack", "concat", "hstack", "vstack"], movement.join)
RULES |= dict.fromkeys(["gather", "index", "index_select", "take", "take_along_dim", "masked_select"], movement.rows)
RULES |= {
    "copy": movement.copy,
    "constant_pad_nd": movement.pad,
    "where": movement.where,
    "masked_fill": movement.masked_fill,
}
RULES |= {
    "scatter": movement.store(3),
    "index_put": movement.store(2),
    "_index_put_impl": movement.store(2),
    "index_copy": movement.store(3),
}
RULES |= {
    "masked_scatter": movement.store(2),
    "slice_scatter": movement.store(1),
    "select_scatter": movement.store(1),
    "index_fill": movement.store(3),
}
RULES |= {
    "scatter_add": movement.adding_store(3),
    "index_add": movement.adding_store(3),
    "scatter_reduce": movement.adding_store(3),
}
RULES |= {
    "embedding": movement.embedding,
    "_embedding_bag": movement.embedding_bag,
    "_embedding_bag_forward_only": movement.embedding_bag,
}
RULES |= dict.fromkeys(
    """add sub rsub neg square floor ceil round trunc frac sign sgn heaviside bitwise_and bitwise_or bitwise_xor bitwise_not
    bitwise_left_shift bitwise_right_shift logical_and logical_or logical_xor logical_not remainder fmod floor_divide
    __and__ __or__ __xor__ __lshift__ __rshift__ ldexp fake_quantize_per_tensor_affine
    nan_to_num deg2rad""".split(),
    arithmetic.each(elementwise=1),
)
RULES |= dict.fromkeys(
    """exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan tanh sigmoid asin acos atan sinh cosh asinh acosh
    atanh erf erfc erfinv lgamma digamma atan2 logit special_i0 hypot xlogy""".split(),
    arithmetic.each(transcendental=1),
)
RULES |= dict.fromkeys(
    """eq ne lt le gt ge maximum minimum fmax fmin threshold signbit isclose equal isfinite isnan isinf isneginf
    isposinf""".split(),
    arithmetic.each(compare=1),
)
RULES |= {
    "relu": arithmetic.signal_keeping(arithmetic.each(compare=1)),
    "relu6": arithmetic.each(compare=2),
    "abs": arithmetic.signal_keeping(arithmetic.each(elementwise=1)),
    "hardtanh": arithmetic.each(compare=2),
    "leaky_relu": arithmetic.each(compare=1, elementwise=1),
    "_prelu_kernel": arithmetic.each(compare=1, elementwise=1),
    "hardsigmoid": arithmetic.each(compare=2, elementwise=2),
    "hardswish": arithmetic.each(compare=2, elementwise=3),
    "hardshrink": arithmetic.each(compare=1),
    "softshrink": arithmetic.each(compare=2, elementwise=1),
    "elu": arithmetic.each(compare=1, transcendental=1, elementwise=1),
    "celu": arithmetic.each(compare=1, transcendental=1, elementwise=2),
    "selu": arithmetic.each(compare=1, transcendental=1, elementwise=2),
    "gelu": arithmetic.each(transcendental=1, elementwise=3),
    "silu": arithmetic.each(transcendental=1, elementwise=1),
    "mish": arithmetic.each(transcendental=3, elementwise=1),
    "softplus": arithmetic.each(transcendental=2, elementwise=1),
    "log_sigmoid_forward": arithmetic.each(transcendental=2, elementwise=1),
    "nll_loss_forward": lambda c, args, kwargs, out: c.emit("elementwise", args[1].numel()),
    "glu": arithmetic.each(transcendental=1, elementwise=1),
    "addcmul": arithmetic.each(elementwise=2),
    "addcdiv": arithmetic.each(elementwise=1, transcendental=1),
    "lerp": arithmetic.each(elementwise=3),
    "logaddexp": arithmetic.each(transcendental=2, elementwise=2),
    "dropout": arithmetic.dropped,
    "native_dropout": arithmetic.dropped,
    "feature_dropout": arithmetic.dropped,
    "alpha_dropout": arithmetic.dropped,
    "mul": arithmetic.mul,
    "multiply": arithmetic.mul,
    "div": arithmetic.div,
    "true_divide": arithmetic.div,
    "divide": arithmetic.div,
    "pow": arithmetic.pow,
    "clamp": arithmetic.clamp,
    "clamp_min": arithmetic.each(compare=1),
    "clamp_max": arithmetic.each(compare=1),
    "clip": arithmetic.clamp,
    "sum": arithmetic.reduce("accumulate"),
    "nansum": arithmetic.reduce("accumulate"),
    "mean": arithmetic.reduce("accumulate", "elementwise"),
    "prod": arithmetic.reduce("elementwise"),
    "amax": arithmetic.pairwise_or_reduce,
    "amin": arithmetic.pairwise_or_reduce,
    "max": arithmetic.pairwise_or_reduce,
    "min": arithmetic.pairwise_or_reduce,
    "aminmax": arithmetic.reduce("compare"),
    "argmax": arithmetic.reduce("compare"),
    "argmin": arithmetic.reduce("compare"),
    "all": arithmetic.reduce("compare"),
    "any": arithmetic.reduce("compare"),
    "count_nonzero": arithmetic.reduce("accumulate"),
    "var": arithmetic.variance,
    "var_mean": arithmetic.variance,
    "std": arithmetic.deviation,
    "std_mean": arithmetic.deviation,
    "norm": arithmetic.reduce("accumulate", "transcendental", "elementwise"),
    "linalg_vector_norm": arithmetic.reduce("accumulate", "transcendental", "elementwise"),
    "logsumexp": arithmetic.reduce("accumulate", "transcendental", "transcendental"),
    "cumsum": arithmetic.prefix("accumulate"),
    "cumprod": arithmetic.prefix("elementwise"),
    "cummax": arithmetic.prefix("compare"),
    "cummin": arithmetic.prefix("compare"),
    "_cummax_helper": arithmetic.prefix("compare"),
    "_cummin_helper": arithmetic.prefix("compare"),
    "topk": arithmetic.topk,
    "sort": arithmetic.sort,
    "argsort": arithmetic.sort,
    "kthvalue": arithmetic.sort,
    "median": arithmetic.sort,
    "mode": arithmetic.sort,
    "_softmax": arithmetic.softmax_rule,
    "softmax": arithmetic.softmax_rule,
    "_safe_softmax": arithmetic.softmax_rule,
    "_log_softmax": arithmetic.softmax_rule,
    "log_softmax": arithmetic.softmax_rule,
    "layer_norm": arithmetic.layer_norm,
    "native_layer_norm": arithmetic.layer_norm,
    "rms_norm": arithmetic.rms_norm,
    "_fused_rms_norm": arithmetic.rms_norm,
    "batch_norm": arithmetic.batch_norm,
    "native_batch_norm": arithmetic.batch_norm,
    "group_norm": arithmetic.group_norm,
    "linear": products.linear,
    "mm": products.of(0, 1),
    "bmm": products.of(0, 1),
    "mv": products.of(0, 1),
    "dot": products.of(0, 1),
    "vdot": products.of(0, 1),
    "addmm": products.of(1, 2),
    "addmv": products.of(1, 2),
    "baddbmm": products.of(1, 2),
    "convolution": products.any_convolution,
    "_convolution": products.any_convolution,
    "convolution_overrideable": products.any_convolution,
    "_int_mm": products.of(0, 1),
    "_grouped_mm": products.grouped,
    "_weight_int8pack_mm": products.linear,
    "cdist": arithmetic.distances,
    "_cdist_forward": arithmetic.distances,
    "upsample_linear1d": arithmetic.each(elementwise=3),
    "upsample_bilinear2d": arithmetic.each(elementwise=7),
    "addr": arithmetic.each(elementwise=2),
    "_unique2": arithmetic.sort,
    "_weight_norm_interface": arithmetic.weight_norm,
    "searchsorted": arithmetic.search(0),
    "bucketize": arithmetic.search(1),
    "isin": arithmetic.is_in,
    "histc": arithmetic.tally,
    "bincount": arithmetic.tally,
    "scaled_dot_product_attention": attention.fused,
    "_scaled_dot_product_flash_attention_for_cpu": attention.flash,
    "_scaled_dot_product_flash_attention": attention.flash,
    "_native_multi_head_attention": attention.native_attention,
    "_transformer_encoder_layer_fwd": attention.encoder_layer,
    "quantized::linear_dynamic": products.quantized_linear,
    "quantized::linear_dynamic_fp16": products.quantized_linear,
}
RULES |= {kind: recurrent.recurrent(kind) for kind in recurrent.GATES}
RULES |= {f"quantized_{kind}": recurrent.quantized_recurrent(kind) for kind in ("lstm", "gru")}
for _axes in (1, 2, 3):
    RULES |= {
        f"conv{_axes}d": products.plain_convolution,
        f"max_pool{_axes}d": arithmetic.pool("compare", _axes),
        f"max_pool{_axes}d_with_indices": arithmetic.pool("compare", _axes),
        f"avg_pool{_axes}d": arithmetic.pool("accumulate", _axes),
        f"adaptive_avg_pool{_axes}d": arithmetic.adaptive_pool("accumulate", _axes),
        f"adaptive_max_pool{_axes}d": arithmetic.adaptive_pool("compare", _axes),
    }
RULES |= {f"_adaptive_avg_pool{_axes}d": arithmetic.adaptive_pool("accumulate", _axes) for _axes in (2, 3)}
