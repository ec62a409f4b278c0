"""The words of the made-up shop: its shelves, its brands, and the names of its items."""

SHELVES: dict[str, dict[str, tuple[float, tuple[str, ...]]]] = {
    "outdoor": {
        "tents": (180, ("Tent", "Tarp", "Bivouac")),
        "backpacks": (90, ("Backpack", "Daypack", "Duffel")),
        "boots": (130, ("Hiking Boot", "Trail Shoe", "Gaiter")),
    },
    "kitchen": {
        "knives": (60, ("Chef Knife", "Paring Knife", "Cleaver")),
        "pans": (70, ("Skillet", "Saucepan", "Wok")),
        "coffee": (110, ("Coffee Grinder", "Moka Pot", "Pour-Over Set")),
    },
    "garden": {
        "seeds": (6, ("Tomato Seeds", "Wildflower Mix", "Herb Seeds")),
        "tools": (35, ("Spade", "Pruner", "Hand Rake")),
        "furniture": (220, ("Garden Bench", "Parasol", "Hammock")),
    },
    "music": {
        "guitars": (320, ("Guitar", "Ukulele", "Bass")),
        "keys": (410, ("Stage Piano", "Synthesizer", "Melodica")),
        "records": (24, ("Jazz Record", "Folk Record", "Organ Record")),
    },
    "books": {
        "novels": (16, ("Novel", "Family Saga", "Sea Story")),
        "cooking": (28, ("Cookbook", "Baking Book", "Pickling Guide")),
        "travel": (21, ("Travel Guide", "Walking Atlas", "Railway Reader")),
    },
    "cycling": {
        "bikes": (780, ("Gravel Bike", "City Bike", "Folding Bike")),
        "lights": (38, ("Front Light", "Rear Light", "Dynamo")),
        "apparel": (65, ("Jersey", "Rain Cape", "Cycling Glove")),
    },
    "photo": {
        "cameras": (640, ("Camera", "Film Camera", "Instant Camera")),
        "lenses": (430, ("Prime Lens", "Zoom Lens", "Macro Lens")),
        "tripods": (95, ("Tripod", "Monopod", "Ball Head")),
    },
    "toys": {
        "blocks": (42, ("Building Blocks", "Marble Run", "Magnet Tiles")),
        "puzzles": (19, ("Jigsaw", "Wooden Puzzle", "Logic Box")),
        "plush": (23, ("Plush Bear", "Plush Fox", "Plush Whale")),
    },
    "fashion": {
        "coats": (160, ("Coat", "Parka", "Rain Jacket")),
        "knitwear": (80, ("Pullover", "Cardigan", "Scarf")),
        "bags": (105, ("Tote Bag", "Satchel", "Belt Bag")),
    },
    "home": {
        "lamps": (75, ("Table Lamp", "Floor Lamp", "Reading Light")),
        "rugs": (140, ("Wool Rug", "Runner", "Jute Rug")),
        "bedding": (68, ("Linen Duvet", "Pillow", "Blanket")),
    },
    "audio": {
        "headphones": (150, ("Headphones", "Earbuds", "Headset")),
        "speakers": (210, ("Speaker", "Soundbar", "Bookshelf Pair")),
        "turntables": (290, ("Turntable", "Cartridge", "Phono Stage")),
    },
    "pets": {
        "dogs": (32, ("Dog Bed", "Lead", "Chew Toy")),
        "cats": (29, ("Scratching Post", "Cat Tunnel", "Cat Tree")),
        "aquaria": (120, ("Aquarium", "Filter", "Moss Stone")),
    },
}
"""Category → sub-category → (middle price in currency units, nouns)."""

BRANDS = (
    "Norvella", "Taskerly", "Ombrine", "Quillmark", "Fjellby", "Perrowen", "Lunacre", "Halvorn",
    "Sablique", "Brindlewood", "Otterlane", "Vesprio", "Kestrow", "Marlund", "Aldermoor",
    "Zephyrine", "Tinderhof", "Corvane", "Pellucid Bay", "Wrenfield", "Ystrad & Daughters",
    "Bellamont", "Drosshaven", "Emberly", "Foxlight", "Gildersea", "Hearthlow", "Ivorne",
    "Juniperus", "Kalmira", "Larkspan", "Mosswick", "Nettleby", "Oriline", "Plumstead Row",
    "Rookhaven", "Silverfen", "Thistlemark", "Umbrasol", "Velloway",
)  # fmt: skip
"""One brand for each campaign."""

ADJECTIVES = (
    "Quiet", "Northern", "Everyday", "Featherlight", "Classic", "Bright", "Rugged", "Little",
    "Grand", "Amber", "Coastal", "Evening", "Honest", "Patient", "Crimson", "Hidden", "Velvet",
    "Morning", "Wandering", "Second", "Silver", "Simple", "Stormproof", "Golden",
)  # fmt: skip

TAGS = (
    "handmade", "recycled", "waterproof", "compact", "gift", "vintage", "limited", "beginner",
    "professional", "wood", "steel", "wool", "colourful", "minimal", "travel", "family",
)  # fmt: skip
