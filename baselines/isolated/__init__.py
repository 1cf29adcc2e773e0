"""Adapters: one file for each library that converts in an environment of its own.

An adapter runs in its library's environment, where `baselines/worker/server.py` reads it. So it
imports that library inside functions alone, and nothing of this project. It has

- `ENVIRONMENT`: what `vcbench baseline install` installs (`EnvironmentRecipe` in
  `baselines/worker/environments.py`);
- `Adapter(device, folder, **options)`: loads the model. `device` is "cpu", "cuda" or "cuda:1";
  `folder` has what was installed besides packages: `repository/` and `weights/`;
- `Adapter.sample_rate`: of the converted speech, in Hz;
- `Adapter.convert(source, reference, seed, stage)`: `source` and `reference` are paths of mono
  float32 wav files; every global source of random numbers is seeded already. It returns the
  samples, of shape (T,) or (1, T). `with stage("vocoder"):` times a part.

docs/guide/isolated-baselines.md adds one step by step.
"""
