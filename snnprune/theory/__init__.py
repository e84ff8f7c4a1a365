"""The probabilistic model behind the spiking-firing criterion, right where the paper slips.

Yao et al. 2023, arXiv 2305.12148; docs/theory.md has what was corrected, and why.
"""
