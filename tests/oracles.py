"""Numbers worked out by hand, each with its derivation. Tests compare the code with these, not with itself."""

from __future__ import annotations

import math

# ---- Work of single layers: a convolution does one multiply-accumulate for each output position, output
# channel, input channel of its group and weight of the kernel.

# 3 x 3, 1 -> 16 channels, 16 x 16, same padding: 256 positions * 16 * 1 * 9; weights 16 * 9, plus 16 biases.
CONVOLUTION_MACS = 36_864
CONVOLUTION_PARAMETERS = 160

# Basic block, 4 -> 4 channels on 8 x 8: two convolutions of 64 * 4 * 4 * 9 = 9,216; the shortcut is free.
BASIC_BLOCK_MACS = 18_432
# Basic block, 4 -> 8 channels, 8 x 8 -> 4 x 4: 16 * 8 * 4 * 9 = 4,608, then 16 * 8 * 8 * 9 = 9,216, and the
# 1 x 1 shortcut 16 * 8 * 4 = 512.
BASIC_BLOCK_HALVING_MACS = 14_336

# Inverted residual, 4 -> 4, expansion 2 (8 inner channels), 8 x 8: expand 64 * 8 * 4 = 2,048; filter, each
# channel on its own, 64 * 8 * 9 = 4,608; project 64 * 4 * 8 = 2,048.
INVERTED_BLOCK_MACS = 8_704
# The same, 4 -> 8 and 8 x 8 -> 4 x 4: expand on 8 x 8: 2,048; filter 16 * 8 * 9 = 1,152;
# project 16 * 8 * 8 = 1,024.
INVERTED_BLOCK_HALVING_MACS = 4_224

# ---- Weights of whole backbones, 1 x 8 x 8 inputs, 4 classes, width 4, one block in each of two stages.

# Residual: stem 9 * 4 + norm 8 = 44; block 4 -> 4: 2 * (4 * 4 * 9 + 8) = 304;
# block 4 -> 8: 4 * 8 * 9 + 16 + 8 * 8 * 9 + 16 + shortcut 4 * 8 + 16 = 944; head 8 * 4 + 4 = 36.
RESIDUAL_PARAMETERS = 1_328
# Inverted residual, expansion 2: stem 44; block 4 -> 4: expand 4 * 8 + 16, filter 8 * 9 + 16, project 8 * 4 + 8 = 176;
# block 4 -> 8: 48 + 88 + project 8 * 8 + 16 = 216; head 1 x 1 to 16: 8 * 16 + 32 = 160, linear 16 * 4 + 4 = 68.
INVERTED_PARAMETERS = 664

# ---- Sizes of spaces.

# 0 to 2 exits with three kinds each, and one of two rules if there is an exit: 1 + 3 * 2 + 3**2 * 2.
CONDITIONAL_POINTS = 25
# Two independent yes/no questions.
PLAIN_POINTS = 4
# (stages, min exits, max exits, placement, granularity, heads, objectives) -> number of choices.
EARLY_EXIT_SIZES: tuple[tuple[tuple[int, ...], int, int, str, str, int, int, int], ...] = (
    # 3 + 1 blocks leave 3 places: none 1; one 3 * 2 heads; two 3 pairs * 4 heads: 1 + 6 + 12, objectives 1.
    ((2, 2), 0, 2, "free", "block", 2, 1, 19),
    # The same with 3 objectives, which only networks with exits have: 1 + 3 * 6 + 3 * 12.
    ((2, 2), 0, 2, "free", "block", 2, 3, 55),
    # At least one exit: the static network falls out.
    ((2, 2), 1, 2, "free", "block", 2, 1, 18),
    # Stage ends only: one place (the last stage ends in the final head): 1 + 1 * 2 heads.
    ((2, 2), 0, 2, "free", "stage", 2, 1, 3),
    # Evenly spread: only the number is free: 1 + 2 + 4 + 8.
    ((2, 2), 0, 3, "even_depth", "block", 2, 1, 15),
    # Three wanted at least, two places there: exactly both of them, 2**2 heads.
    ((1, 1, 1), 3, 5, "free", "block", 2, 1, 4),
    # One block leaves no place at all: the static network alone.
    ((1,), 0, 3, "free", "block", 3, 3, 1),
    # 5 places, exactly 2 exits, one head, 3 objectives: 10 pairs * 3.
    ((2, 2, 2), 2, 2, "free", "block", 1, 3, 30),
)

# ---- Decisions.

# p = (1/2, 1/4, 1/8, 1/8): largest 1/2; lead 1/4; entropy 1/2 * 1 + 1/4 * 2 + 2 * 1/8 * 3 = 7/4 bits of at most 2.
PROBABILITIES = (1 / 2, 1 / 4, 1 / 8, 1 / 8)
# Before it is trained, the learned score has the log-odds of the best class (0, as 1/2 is against 1/2) and 0.05 of both
# entropy and margin. Equal classes: odds of 1 to 3, so 1/4.
LEARNED_SCORE = 1 / (1 + math.exp(-0.05 * (1 / 8 + 1 / 4)))
SCORES = {"max_prob": 1 / 2, "margin": 1 / 4, "entropy": 1 / 8, "patience": 1.0, "learned_confidence": LEARNED_SCORE}
# Four equal classes: nothing is known. One class alone: everything is.
UNIFORM_SCORES = {"max_prob": 1 / 4, "margin": 0.0, "entropy": 0.0, "patience": 1.0, "learned_confidence": 1 / 4}
CERTAIN_SCORES = {"max_prob": 1.0, "margin": 1.0, "entropy": 1.0, "patience": 1.0, "learned_confidence": 1.0}

# ---- Training objectives. Three exits give the right class probability 1/2, 1/4, 1/8: cross entropies of
# 1, 2 and 3 times ln 2.
RIGHT_PROBABILITIES = (1 / 2, 1 / 4, 1 / 8)
EQUAL_LOSS = 2 * math.log(2)  # (1 + 2 + 3) / 3
LINEAR_LOSS = 14 / 6 * math.log(2)  # (1 * 1 + 2 * 2 + 3 * 3) / (1 + 2 + 3)
EQUILIBRIUM_LOSS = 6 * math.log(2)  # the plain sum
# Smoothing 0.4 over four classes with PROBABILITIES, right class first: 0.6 * 1 + 0.1 * (1 + 2 + 3 + 3) = 1.5 ln 2.
SMOOTHED_LOSS = 1.5 * math.log(2)
# Distillation at temperature 3 between logits 3 ln(1/4), 3 ln(3/4) (softened: 1/4, 3/4; sharp: 1/28, 27/28) and a
# final head of 0, 0 (1/2, 1/2), right class the second. Divergence of the pupil from the teacher:
# 1/2 ln(1/2 : 1/4) + 1/2 ln(1/2 : 3/4) = 1/2 ln(4/3), times 3**2; the pupil has half of each, the final head its cross
# entropy alone, ln 2.
PUPIL_LOSS = 0.5 * math.log(28 / 27) + 0.5 * 9 * math.log(4 / 3) / 2
FINAL_LOSS = math.log(2)

# ---- Gradient equilibrium (Li et al., ICCV 2019). A chain of three scalar blocks w = 2, 3, 5 on x = 1 with exits of
# weights a = 7, 11 after the first two and a final head of 13; the loss is the sum of the three outputs. At exit i of
# k = 3 the branch sends 1 / (k - i + 1), the trunk (k - i) / (k - i + 1): 1/3 and 2/3, then 1/2 and 1/2. So each
# block gets the mean, not the sum, of what the exits behind it send:
# w1: (7 + 3 * 11 + 3 * 5 * 13) / 3; w2: (2 * 11 + 2 * 5 * 13) / 2; w3: 2 * 3 * 13.
CHAIN_WEIGHTS = (2.0, 3.0, 5.0)
CHAIN_HEADS = (7.0, 11.0, 13.0)
EQUILIBRIUM_GRADIENTS = (235 / 3, 76.0, 78.0)
PLAIN_GRADIENTS = (235.0, 152.0, 78.0)  # without equilibrium: the sums
# Heads see their own loss whole, with or without equilibrium: the features 2, 2 * 3, 2 * 3 * 5.
HEAD_GRADIENTS = (2.0, 6.0, 30.0)
