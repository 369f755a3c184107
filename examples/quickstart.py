"""The README's ten lines: a small search over early exits on handwritten digits."""

from dynarch import Budget, EarlyExit, Problem, Residual, SearchService, Space

if __name__ == "__main__":
    space = Space(backbones=(Residual(width=(8,), depth=(1, 2)),), families=(EarlyExit(max_exits=2),))
    problem = Problem(space=space, data="digits", budget=Budget(trials=6, epochs=6, workers=2))
    search = SearchService("dynarch-results").launch(problem)
    search.wait(progress=True)
    for point in search.front():
        print(point, f"accuracy {point.accuracy:.3f}", f"{point.latency_ms:.3f} ms")
    network = search.front()[-1].load()  # an nn.Module that leaves at the first exit that is sure enough
