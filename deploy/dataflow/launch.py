"""What the flex template's launcher starts, in the image of Dockerfile: the step whose flags are the template's own."""

from deploy.score_journeys import main
from preprocessing.cli import run

if __name__ == "__main__":
    run(main)
