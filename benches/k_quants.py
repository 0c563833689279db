"""Rounding of weights to GGUF's Q2_K, Q3_K, Q4_K and Q6_K, by the largest and the smallest value of each block. PyPI's gguf only reads these formats."""

import numpy as np

SUPERBLOCK = 256


def as_bytes(values):
    """The halves of one value per superblock."""
    return np.ascontiguousarray(values.astype(np.float16)).view(np.uint8).reshape(len(values), 2)


def rounded(values, divisor, lowest, highest):
    """values / divisor, rounded; 0 where the divisor is 0."""
    quotients = np.divide(values, divisor, out=np.zeros_like(values), where=divisor != 0)
    return np.clip(np.rint(quotients), lowest, highest)


def bit_pairs(codes):
    """Bytes of codes of two bits (superblocks, 256): each 32 bytes hold 128 codes, the first 32 in the lowest bits."""
    quarters = codes.reshape(-1, 2, 4, 32)
    return (quarters[:, :, 0] | quarters[:, :, 1] << 2 | quarters[:, :, 2] << 4 | quarters[:, :, 3] << 6).reshape(-1, 64)


def affine(blocks, max_scale_code, max_code):
    """Factors of the scales and of the minima of each superblock, their codes of each block, and the codes of the weights."""
    minima = np.maximum(-blocks.min(axis=2), 0.0)
    scales = (blocks.max(axis=2) + minima) / max_code
    scale_factors, minimum_factors = ((of.max(axis=1) / max_scale_code).astype(np.float16).astype(np.float32) for of in (scales, minima))
    scale_codes = rounded(scales, scale_factors[:, None], 0, max_scale_code)
    minimum_codes = rounded(minima, minimum_factors[:, None], 0, max_scale_code)
    stored_scales = (scale_factors[:, None] * scale_codes)[..., None]
    codes = rounded(blocks + (minimum_factors[:, None] * minimum_codes)[..., None], stored_scales, 0, max_code)
    return scale_factors, scale_codes.astype(np.uint8), minimum_factors, minimum_codes.astype(np.uint8), codes.astype(np.uint8)


def quantize_q2_k(rows):
    """Bytes of each row (rows, 84 per 256 weights)."""
    blocks = rows.astype(np.float32).reshape(-1, 16, 16)
    scale_factors, scale_codes, minimum_factors, minimum_codes, codes = affine(blocks, 15, 3)
    packed = scale_codes | minimum_codes << 4
    return np.concatenate([packed, bit_pairs(codes), as_bytes(scale_factors), as_bytes(minimum_factors)], axis=1).reshape(len(rows), -1)


def quantize_q3_k(rows):
    """Bytes of each row (rows, 110 per 256 weights)."""
    blocks = rows.astype(np.float32).reshape(-1, 16, 16)
    scales = np.abs(blocks).max(axis=2) / 4
    factors = (scales.max(axis=1) / 31).astype(np.float16).astype(np.float32)
    scale_codes = rounded(scales, factors[:, None], 0, 31)
    codes = rounded(blocks, (factors[:, None] * scale_codes)[..., None], -4, 3) + 4
    codes, scale_codes = codes.astype(np.uint8).reshape(-1, 256), scale_codes.astype(np.uint8) + 32
    third_bits = np.packbits(codes.reshape(-1, 8, 32) >> 2, axis=1, bitorder="little").reshape(-1, 32)
    low, high = scale_codes & 15, (scale_codes >> 4).reshape(-1, 4, 4)
    packed = np.concatenate([low[:, :8] | low[:, 8:] << 4, high[:, 0] | high[:, 1] << 2 | high[:, 2] << 4 | high[:, 3] << 6], axis=1)
    return np.concatenate([third_bits, bit_pairs(codes & 3), packed, as_bytes(factors)], axis=1).reshape(len(rows), -1)


def quantize_q4_k(rows):
    """Bytes of each row (rows, 144 per 256 weights)."""
    blocks = rows.astype(np.float32).reshape(-1, 8, 32)
    scale_factors, scale_codes, minimum_factors, minimum_codes, codes = affine(blocks, 63, 15)
    packed = np.concatenate(
        [
            scale_codes[:, :4] | scale_codes[:, 4:] >> 4 << 6,
            minimum_codes[:, :4] | minimum_codes[:, 4:] >> 4 << 6,
            scale_codes[:, 4:] & 15 | (minimum_codes[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
    pairs = codes.reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    return np.concatenate([as_bytes(scale_factors), as_bytes(minimum_factors), packed, nibbles], axis=1).reshape(len(rows), -1)


def quantize_q6_k(rows):
    """Bytes of each row (rows, 210 per 256 weights)."""
    blocks = rows.astype(np.float32).reshape(-1, 16, 16)
    scales = np.abs(blocks).max(axis=2) / 31
    factors = (scales.max(axis=1) / 127).astype(np.float16).astype(np.float32)
    scale_codes = rounded(scales, factors[:, None], 0, 127)
    codes = rounded(blocks, (factors[:, None] * scale_codes)[..., None], -32, 31) + 32
    codes = codes.astype(np.uint8)
    low = (codes & 15).reshape(-1, 2, 4, 32)
    nibbles = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
    return np.concatenate([nibbles, bit_pairs(codes >> 4), scale_codes.astype(np.uint8), as_bytes(factors)], axis=1).reshape(len(rows), -1)
