import inspect

from amago_ray import errors


def test_every_error_derives_from_one_root_and_is_drawn_in_the_tree() -> None:
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass)]

    assert len(classes) >= 8
    for error in classes:
        assert issubclass(error, errors.AmagoRayError)
        assert error.__name__ in (errors.__doc__ or "")


def test_an_unusable_space_is_an_environments_error() -> None:
    assert issubclass(errors.SpaceError, errors.EnvError)
