/** A word of a command line as a POSIX shell takes it: for commands in messages, which people copy. */
export function shellWord(word: string): string {
  if (/^[\w.@%+=:,/-]+$/.test(word)) return word
  return `'${word.replaceAll("'", "'\\''")}'`
}
