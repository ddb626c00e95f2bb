/** A word that is no option's value, such as a name, at the end of a command line: one with a `-` in front could be an option. */
export function shellOperand(word: string): string {
  return word.startsWith('-') ? `-- ${shellWord(word)}` : shellWord(word)
}

/** A word of a command line as a POSIX shell takes it: for commands in messages, which people copy. */
export function shellWord(word: string): string {
  if (/^[\w.@%+=:,/-]+$/.test(word)) return word
  return `'${word.replaceAll("'", "'\\''")}'`
}
