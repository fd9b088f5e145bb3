"""What distinguishes one variant of the net of 2012 from another: one frozen dataclass. No torch, no DALI, no files."""

from dataclasses import dataclass

ALEXNET = "alexnet"  # the net's name in --model and in configurations
COLUMNS = 2
HEAD = ("low", "fc8")  # layers whose shape depends on the number of classes


@dataclass(frozen=True)
class NetOptions:
    """Options of `AlexNet`. The defaults are the program of 2012; each other value is the text's or another recipe's.

    Attributes:
        pool_before_relu: layer 1 is conv, LRN, pool, ReLU (the program); otherwise conv, ReLU, LRN, pool (the text).
        lrn_scale: factor of the sum of squares over five maps: 1e-4 / 5 (the program divides by n) or 1e-4 (the text).
        within_map: whether layer 2 is normalised a second time, within each map (the program).
        deep_std: standard deviation of the initial weights of conv3 to conv6: 0.03 (the program) or 0.01 (the text).
        norm: `lrn`; `none` (layers-148); `batch`, batch normalisation after every convolution (2015).
        columns: 2; or 1: half of the kernels of conv1 to conv4, all of the others (layers-145-half, footnote 2).
        talk: whether conv3 and the fully connected layers take both columns as input. If not (layers-150), conv2 has
            160 kernels and fc6 4096 units per column, and the columns meet only in the softmax.
        conv6: whether there is a sixth convolution, over the last pooling layer and both columns (layers-146,
            section 6).
        low: number of linear units between fc7 and the softmax, 2 x 1024 for 21,843 classes; 0 for none.
        pool: side of the pooling windows: 3, or 2 without overlap (layers-147).
        activation: `relu` or `tanh`.
        dropout: whether fc6 and fc7 have dropout.
        init: `2012`; or `kaiming`: standard deviations of sqrt(2 / inputs), biases 0 (2015).
    """

    pool_before_relu: bool = True
    lrn_scale: float = 1e-4 / 5
    within_map: bool = True
    deep_std: float = 0.03
    norm: str = "lrn"
    columns: int = COLUMNS
    talk: bool = True
    conv6: bool = False
    low: int = 0
    pool: int = 3
    activation: str = "relu"
    dropout: bool = True
    init: str = "2012"

    @property
    def maps(self) -> tuple[int, ...]:
        """Numbers of kernels of conv1 to conv6, over all columns."""
        if self.columns == 1:
            return 48, 128, 192, 192, 256, 256
        return 96, 256 if self.talk else 320, 384, 384, 256, 256
