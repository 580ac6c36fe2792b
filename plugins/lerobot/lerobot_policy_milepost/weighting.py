"""`--sample_weighting.type=milepost`: the weights of `milepost weigh` in the training of any policy of LeRobot."""


def offer_weights() -> None:
    pass
