// The text of an EditText.

package android.text

interface Editable : CharSequence {
    fun clear()
}
