from slamhmr import codehash


def test_a_step_depends_on_what_it_imports_and_on_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(codehash, "ROOT", tmp_path)
    package = tmp_path / "slamhmr"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "step.py").write_text("def f():\n    from slamhmr import inner\n    return inner\n")
    (package / "inner.py").write_text("import slamhmr.deep\nimport numpy\n")
    (package / "deep.py").write_text("x = 1\n")
    (package / "other.py").write_text("x = 1\n")

    def fresh():
        codehash.code_hash.cache_clear()
        codehash.imports_of.cache_clear()
        return codehash.code_hash("slamhmr.step")

    first = fresh()
    (package / "other.py").write_text("x = 2\n")
    assert fresh() == first
    (package / "deep.py").write_text("x = 2\n")
    assert fresh() != first


def test_shipped_data_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(codehash, "ROOT", tmp_path)
    (tmp_path / "priors" / "weights").mkdir(parents=True)
    (tmp_path / "priors" / "weights" / "pose.npz").write_bytes(b"1")
    codehash.code_hash.cache_clear()
    first = codehash.code_hash("slamhmr.step")
    (tmp_path / "priors" / "weights" / "pose.npz").write_bytes(b"2")
    codehash.code_hash.cache_clear()
    assert codehash.code_hash("slamhmr.step") != first


def test_stages_depend_on_the_solver_and_not_on_the_detector():
    found = set()
    waiting = ["slamhmr.stages"]
    while waiting:
        path = codehash.source_of(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting.extend(codehash.imports_of(path))
    names = {str(path.relative_to(codehash.ROOT)) for path in found}
    assert {"slamhmr/solve/levenberg.py", "slamhmr/terms/data.py", "slamhmr/body.py"} <= names
    assert not any(name.startswith("slamhmr/detect") for name in names)


def test_scripts_of_other_environments_belong_to_who_runs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(codehash, "ROOT", tmp_path)
    package, script = tmp_path / "slamhmr", tmp_path / "third_party" / "droid_slam" / "run.py"
    package.mkdir()
    script.parent.mkdir(parents=True)
    (package / "foreign.py").write_text("x = 1\n")
    (package / "camera.py").write_text("from slamhmr.foreign import x\n")
    (package / "other.py").write_text("x = 1\n")
    found = []
    for text in ("1", "2"):
        script.write_text(text)
        codehash.code_hash.cache_clear()
        codehash.imports_of.cache_clear()
        found.append([codehash.code_hash(f"slamhmr.{name}") for name in ("camera", "other")])
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1]
