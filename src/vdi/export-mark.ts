/**
 * The attribute of a snapshot that an export has taken for itself, and deletes at its end. One that is still there while nobody
 * has the snapshot open was left by an export that was killed.
 */
export const EXPORT_MARK = 'collie.export'
