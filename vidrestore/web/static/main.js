// The page: puts its parts together.

import { Announcer } from "./announce.js";
import { keepRows, make, setText, show } from "./dom.js";
import { Moment } from "./moment.js";
import { Options } from "./options.js";
import { People } from "./people.js";
import { Player } from "./player.js";
import { Profiles } from "./profiles.js";
import { Queue } from "./queue.js";
import { Space } from "./space.js";
import { StartBar } from "./start_bar.js";
import { Store } from "./store.js";
import { Timeline } from "./timeline.js";
import { Videos } from "./videos.js";

const GONE = "The program that serves this page has ended. Start vidrestore ui again; this page continues by itself.";
const EDGE_PX = 16;
const WELCOME = "Clear faces in your videos";

function showFrame(store, player) {
  const { state, trouble } = store;
  const banner = document.getElementById("trouble");
  show(banner, trouble !== null);
  setText(banner, trouble === "gone" ? GONE : trouble);
  if (!state) return;
  keepRows(document.getElementById("notices"), state.notices ?? [], (notice) => notice, (notice) => ({ node: make("p", { text: notice }), update: () => {} }));
  const isEmpty = player.subject === null;
  document.body.dataset.view = isEmpty ? "empty" : player.subject.video ? "video" : "result";
  const title = document.getElementById("choose-title");
  setText(title, isEmpty ? WELCOME : "Videos");
  title.classList.toggle("panel-title", !isEmpty);
  const files = document.getElementById("choose-files");
  files.classList.toggle("primary", isEmpty);
  files.classList.toggle("plain", !isEmpty);
  setText(document.getElementById("machine-name"), state.is_local ? "this computer" : "the computer that serves this page");
  setText(document.getElementById("machine"), state.machine);
}

/** Keep the player in view beside the settings, its lower end above the bar. */
function followLook() {
  const [look, bar] = [document.getElementById("look"), document.getElementById("bar")];
  const place = () => {
    const room = innerHeight - look.offsetHeight - bar.offsetHeight - EDGE_PX;
    look.style.top = `${Math.min(EDGE_PX, room)}px`;
  };
  const observer = new ResizeObserver(place);
  observer.observe(look);
  observer.observe(bar);
  window.addEventListener("resize", place);
}

const store = new Store();
const announcer = new Announcer(document.getElementById("announcer"));
const player = new Player(store);
store.addEventListener("change", () => showFrame(store, player));
store.addEventListener("change", () => store.state && announcer.followAll(store.state));
new Timeline(store, player);
new Moment(store, player);
new Videos(store);
new Profiles(store);
new People(store);
new Options(store);
new StartBar(store, announcer);
new Queue(store, player);
new Space(store);
followLook();
store.start();
