"""A trained network of one's own, here a small one for the embedded digits, made dynamic."""

import torch
from torch import nn

import dynarch
from dynarch.evaluators.data import load_data


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features after the block."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + x)


def trained(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Stands for the training that happened long ago."""
    blocks = [Block(16) for _ in range(4)]
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(4):
        for rows in torch.split(torch.randperm(len(x)), 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


if __name__ == "__main__":
    data = load_data("digits")
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    model = trained(x[:600], y[:600])

    adopted = dynarch.adopt(model, x[:2])  # blocks are found; the model is left as it is
    space = dynarch.Space(backbones=(adopted,), families=(dynarch.EarlyExit(max_exits=2),))
    problem = dynarch.Problem(space=space, data="digits", budget=dynarch.Budget(trials=6, epochs=6))
    search = dynarch.SearchService("dynarch-results").launch(problem)
    search.wait(progress=True)
    for point in search.front():
        print(point, f"accuracy {point.accuracy:.3f}", f"{point.latency_ms:.3f} ms")
