"""Recipes for photographs: traffic signs, CIFAR-10, and a folder of the user's own pictures."""

from training.recipes.recipe import Augmentation, Placement, Recipe, change_recipe

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What backbones with trained weights were normalised with."""

GTSRB_SMALL = Recipe(
    name="gtsrb-small",
    summary="the bundled model signs/1: traffic signs, with at most 1.5 million parameters",
    dataset="gtsrb",
    validation_size=4000,
    distortion="none",
    augmentation=Augmentation(rotation=15, zoom=1.15, stretch=1.15, shear=8, shift=0.08, light=0.7),
    canvas=(48, 48),
    mean=(0.3384, 0.3103, 0.3191),
    std=(0.2729, 0.2621, 0.2682),
    transformer="affine",
    padding="border",
    rectified=(32, 32),
    samples=1,
    localisation="modern",
    localisation_rate=1.0,
    classifier_width=32,
    classifier_stages=4,
    upright=0.5,
    area=0.05,
    epochs=12,
    label_smoothing=0.05,
    precision="bf16",
    learning_rate=2e-3,
    weight_decay=0.05,
)
"""The German Traffic Sign Recognition Benchmark. Each step shows every picture twice, for `upright`."""

SIGNS = Recipe(
    name="signs",
    summary="the bundled model signs/2: traffic signs, found anywhere in a photograph, straightened and read",
    dataset="gtsrb",
    validation_size=4000,
    distortion="none",
    augmentation=Augmentation(rotation=15, zoom=1.6, stretch=1.15, shear=6, shift=0.15, light=0.7),
    placement=Placement(chance=0.6, rotation=30, roll=0.5, weather=0.25),
    balance=0.5,
    canvas=(96, 96),
    mean=(0.3384, 0.3103, 0.3191),
    std=(0.2729, 0.2621, 0.2682),
    normalise="each",
    transformer="affine",
    padding="border",
    crop=0.8,
    steps=2,
    view=(28, 28),
    margin=1.3,
    joint=False,
    rectified=(32, 32),
    pyramid=True,
    localisation="attention",
    refinement="fine",
    localisation_rate=1.0,
    pose=1.5,
    box=0.94,
    classifier_widths=(16, 48, 96, 192),
    classifier_stages=4,
    epochs=24,
    label_smoothing=0.05,
    average=0.998,
    precision="bf16-all",
    learning_rate=2e-3,
    weight_decay=0.05,
)
"""Set backgrounds to a folder of photographs without signs.

The classification loss does not reach theta: through the sampled pixels it draws the frame into the digits, where the
pose loss then has to hold against it. Fading (`weather`) keeps the frame on signs whose rims are washed out.
"""
SIGNS_CNN = change_recipe(
    SIGNS,
    {
        "name": "signs-cnn",
        "summary": "signs without a transformer, on the same pictures",
        "canvas": (64, 64),
        "transformer": "none",
        "steps": 1,
        "view": None,
        "margin": 1.0,
        "joint": True,
        "refinement": None,
        "crop": 1.0,
        "pose": 0.0,
        "box": 1.0,
        "pyramid": False,
        "classifier_widths": (16, 32, 64, 128, 224),
        "classifier_stages": 5,
    },
)

MY_IMAGES = Recipe(
    name="my-images",
    summary="your own pictures: a folder with one directory for each class",
    dataset="folder",
    distortion="none",
    augmentation=Augmentation(rotation=15, zoom=1.3, stretch=1.15, shear=6, shift=0.1, light=0.5),
    placement=Placement(chance=0.4),
    canvas=(64, 64),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    normalise="each",
    transformer="affine",
    padding="border",
    crop=0.8,
    steps=2,
    view=(32, 32),
    margin=1.3,
    rectified=(40, 40),
    localisation="attention",
    refinement="fine",
    localisation_rate=1.0,
    pose=0.5,
    canonical=1.0,
    corners=10.0,
    upright=0.5,
    classifier_width=32,
    classifier_stages=4,
    epochs=30,
    label_smoothing=0.05,
    average=0.99,
    learning_rate=2e-3,
    weight_decay=0.05,
)
"""Sizes, normalisation, epochs and batch size are chosen when a run is created (see training/data/folder/sizing.py).

Set crop to the share of the sides that the object usually fills, and backgrounds to a folder of pictures without it.
"""

CORNERS = change_recipe(
    MY_IMAGES,
    {
        "name": "corners",
        "summary": "plates, cards, documents: found and straightened, from a folder of pictures with a corners.csv",
        "augmentation": Augmentation(rotation=20, zoom=1.4, stretch=1.15, shear=8, shift=0.15, light=0.5),
        "placement": Placement(),
        "canvas": (96, 96),
        "transformer": "projective",
        "crop": 0.7,
        "pose": 0.0,
        "canonical": 0.0,
        "corners": 10.0,
        "identity_penalty": 0.02,
        "classifier_widths": (16, 32),
    },
)
"""A single class is enough, because the corners are the labels. Sizes and epochs are chosen as for my-images.

The identity penalty brings corners back that lie beyond the horizon of a projective map, where they have no gradient.
"""

GTSRB = change_recipe(
    GTSRB_SMALL,
    {
        "name": "gtsrb",
        "summary": "traffic signs, for the highest accuracy of a single network; two steps",
        "steps": 2,
        "rectified": (48, 48),
        "classifier_width": 64,
        "epochs": 30,
    },
)
GTSRB_CNN = change_recipe(
    GTSRB,
    {
        "name": "gtsrb-cnn",
        "summary": "gtsrb without a transformer; twice the epochs, since it sees each picture once per step",
        "transformer": "none",
        "steps": 1,
        "upright": 0.0,
        "area": 0.0,
        "epochs": 60,
    },
)

CIFAR10_145K = Recipe(
    name="cifar10-145k",
    summary="a CIFAR-10 study's network of 145,104 parameters, without augmentation",
    dataset="cifar10",
    distortion="none",
    canvas=(32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
    transformer="affine",
    rectified=(32, 32),
    localisation="cifar",
    classifier="cifar",
    epochs=30,
    batch_size=128,
    optimiser="sgd",
    momentum=0.9,
    precision="bf16",
    learning_rate=0.05,
    localisation_rate=0.1,
    warmup=0.3,
    weight_decay=5e-4,
)
"""The study reported 78.91 % after 50 epochs with batches of 512. Here 5,000 training pictures are held out."""

CIFAR10 = Recipe(
    name="cifar10",
    summary="CIFAR-10 with at most 150,000 parameters and a transformer",
    dataset="cifar10",
    distortion="none",
    augmentation=Augmentation(flip=True, shift=0.125),
    canvas=(32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
    transformer="affine",
    padding="border",
    rectified=(32, 32),
    localisation="cifar",
    localisation_rate=0.1,
    classifier="residual",
    classifier_width=16,
    classifier_blocks=(2, 4, 1),
    epochs=100,
    optimiser="sgd",
    momentum=0.9,
    precision="bf16",
    learning_rate=0.1,
    weight_decay=5e-4,
    label_smoothing=0.05,
    identity_penalty=10.0,
)
"""Without the identity penalty, the transformer zooms out on every picture, which loses sharpness."""
CIFAR10_CNN = change_recipe(
    CIFAR10,
    {
        "name": "cifar10-cnn",
        "summary": "cifar10 without a transformer; one more block makes up for the localisation network's parameters",
        "transformer": "none",
        "identity_penalty": 0.0,
        "classifier_blocks": (3, 4, 1),
    },
)

PHOTOGRAPHS_224 = Recipe(
    name="photographs-224",
    summary="photographs of 224x224 pixels in a folder: localisation sees a small copy, a backbone the region",
    dataset="folder",
    adapt=False,
    distortion="none",
    augmentation=Augmentation(rotation=15, zoom=1.3, stretch=1.15, shift=0.1, light=0.5),
    canvas=(224, 224),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    transformer="affine",
    padding="border",
    rectified=(128, 128),
    pyramid=True,
    localisation="modern",
    localisation_size=(64, 64),
    corners=10.0,
    identity_penalty=0.1,
    classifier="torchvision:mobilenet_v3_small",
    epochs=30,
    batch_size=64,
    label_smoothing=0.05,
    learning_rate=1e-3,
    weight_decay=0.05,
)
"""Trained weights are not downloaded by themselves: set pretrained=true, and depth_decay or frozen_stages."""
PHOTOGRAPHS_224_CNN = change_recipe(
    PHOTOGRAPHS_224,
    {
        "name": "photographs-224-cnn",
        "summary": "photographs-224 without a transformer; the backbone reads the whole photograph",
        "transformer": "none",
        "localisation_size": None,
        "pyramid": False,
        "corners": 0.0,
        "identity_penalty": 0.0,
    },
)

BIRDS = Recipe(
    name="birds",
    summary="CUB-200-2011: two regions of half the size, each read by a backbone of its own",
    dataset="cub",
    validation_size=600,
    distortion="none",
    augmentation=Augmentation(flip=True, zoom=1.2, shift=0.1, light=0.3),
    canvas=(224, 224),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    transformer="translation",
    parallel=2,
    tile=0.5,
    padding="border",
    rectified=(112, 112),
    localisation="modern",
    localisation_size=(64, 64),
    classifier="torchvision:resnet18",
    depth_decay=0.7,
    epochs=40,
    batch_size=64,
    label_smoothing=0.1,
    learning_rate=1e-3,
    localisation_rate=0.1,
    weight_decay=0.05,
)
"""Jaderberg et al. 2015, section 4.3; with parallel=4, four regions. Set pretrained=true: 5,994 pictures are few."""
