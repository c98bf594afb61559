"""What the commands share: configuration, paths, and errors in one sentence."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


def command(name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a configuration the program ``gnnm-<name>``, configured by ``conf/<name>.yaml``.

    A ``ValueError`` or ``FileNotFoundError`` is the user's to mend: it is printed without traceback.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(function)
        def guarded(config: DictConfig) -> Any:
            try:
                missing = sorted(OmegaConf.missing_keys(config))
                if missing:
                    # only gnnm-train has experiments, which give such settings
                    other = " or an experiment=..." if "experiment" in HydraConfig.get().runtime.choices else ""
                    raise ValueError(f"{', '.join(missing)} must be given, such as {missing[0]}=...{other}")
                OmegaConf.resolve(config)
                return function(config)
            except (ValueError, FileNotFoundError) as error:
                sys.exit(f"gnnm-{name}: {error}")
            except KeyboardInterrupt:
                sys.exit(f"gnnm-{name}: interrupted; what was finished is on disk")

        return hydra.main(config_path="pkg://gnn_metriplectic.conf", config_name=name, version_base="1.3")(guarded)

    return decorate


def plain(config: Any) -> Any:
    """A part of the configuration as dicts and lists."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def of_training(config: DictConfig) -> DictConfig:
    """``config`` with the system, and its data, that the checkpoint was trained on, unless others were chosen.

    A training keeps its configuration beside its checkpoints.
    """
    record = None if config.checkpoint is None else Path(config.checkpoint).with_name("config.yaml")
    chosen = [word.lstrip("+~").split("=")[0].split(".")[0] for word in HydraConfig.get().overrides.task]
    if record is not None and record.is_file() and "system" not in chosen:
        trained = OmegaConf.load(record)
        config = config.copy()
        config.system = trained.system
        for name in {"data", "data_seed"} - set(chosen):
            config[name] = trained[name]
    return config


def output_folder(config: DictConfig) -> Path:
    """``out``, or in a multirun the folder of the job."""
    hydra_config = HydraConfig.get()
    return Path(hydra_config.runtime.output_dir if hydra_config.mode == RunMode.MULTIRUN else config.out)
