/**
 * Of the XML that S3 answers with, what is asked for here: elements by their names, which never lie in one of the same name. It is
 * no parser of XML: there are no attributes of meaning, no comments and no sections in these documents.
 */

/** What stands in each element of that name, as it is written. */
export function elements(xml: string, name: string): string[] {
  const found: string[] = []
  const opening = new RegExp(`<${name}(?:\\s[^>]*)?>`, 'g')
  const closing = `</${name}>`
  for (let match = opening.exec(xml); match !== null; match = opening.exec(xml)) {
    const end = xml.indexOf(closing, opening.lastIndex)
    if (end === -1) return found
    found.push(xml.slice(opening.lastIndex, end))
    opening.lastIndex = end + closing.length
  }
  return found
}

/** The text of each element of that name. */
export const textsOf = (xml: string, name: string): string[] => elements(xml, name).map(withoutEntities)

/** The text of the first one, null when there is none. */
export const textOf = (xml: string, name: string): string | null => textsOf(xml, name)[0] ?? null

const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }

function withoutEntities(text: string): string {
  return text.replace(
    /&(?:#x([0-9a-fA-F]{1,6})|#(\d{1,7})|(\w+));/g,
    (whole, hex?: string, decimal?: string, word?: string) => {
      if (word !== undefined) return ENTITIES[word] ?? whole
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16)
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole
    },
  )
}
