/** What is dropped or pasted: files, folders, or something else. */

const ELSEWHERE = "This page cannot load pictures from other pages: save the picture, then drop the file here.";
const NO_PICTURE = "There is no picture in what was dropped or pasted: use files or folders with pictures.";
const NAME = /\.(avif|bmp|gif|hei[cf]|jpe?g|png|tiff?|webp)$/i;

/** Returns the pictures among files of a folder, by their names; throws a sentence where there are none. */
export function picturesAmong(files) {
  const pictures = files.filter(({ name }) => NAME.test(name));
  if (pictures.length) return pictures;
  throw new Error("There are no pictures in this folder: choose another one.");
}

/**
 * Returns the files of a DataTransfer, and the pictures of its folders; throws a sentence where there are none.
 * A transfer is empty after the first await.
 */
export async function picturesOf(transfer) {
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.some((entry) => entry.isDirectory)) return (await Promise.all(entries.map(filesOf))).flat();
  if (files.length) return files;
  const text = transfer.getData("text/uri-list") || transfer.getData("text/plain");
  throw new Error(/^(https?|data|blob|file):/.test(text.trim()) ? ELSEWHERE : NO_PICTURE);
}

const filesOf = async (entry) => (entry.isFile ? [await asFile(entry)] : picturesAmong(await filesBelow(entry)));

const asFile = (entry) => new Promise((resolve, reject) => { entry.file(resolve, reject); });

/** The files in a folder and in those below it, by name. */
async function filesBelow(entry) {
  if (entry.isFile) return [await asFile(entry)];
  const inside = await readAll(entry.createReader());
  inside.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  return (await Promise.all(inside.map(filesBelow))).flat();
}

/** A reader returns some of the entries at a time, and in the end none. */
async function readAll(reader) {
  const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
  return some.length ? [...some, ...await readAll(reader)] : [];
}
