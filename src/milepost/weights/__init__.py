"""Progress -> sample weights: reward-aligned behaviour cloning (RA-BC; SARM paper arXiv 2509.25358, eqs. 6-9). numpy only.

    delta  = phi(min(t + H, end)) - phi(t)                       how much the next H frames get done
    soft   = clip((delta - (mu - 2 sigma)) / (4 sigma + eps), 0, 1)    mu = max(mean delta, 0), sigma population std, over the dataset
    weight = 1 if delta > kappa; soft if 0 <= delta <= kappa; 0 if negative; `fallback_weight` if there is no delta

That is the default, LeRobot 0.6's numbers; `RabcConfig` names what else there is. A weight is a column, not an object. No file, no torch.
`advantage.py` makes advantage labels (RECAP) from the same curves.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
